// SPDX-License-Identifier: MPL-2.0
//! Whether numbers are numbers: what is NaN or infinite is not kept and not said.

use candle_core::{DType, Result, Tensor};

use super::kernels;

/// Whether all elements are finite.
pub fn finite(x: &Tensor) -> Result<bool> {
    let mut sum = Sum::default();
    sum.add(x)?;
    sum.is_finite()
}

/// Gathers whether tensors are finite without looking: it is read once, at the end.
#[derive(Default)]
pub struct Sum {
    sum: Option<Tensor>,
    /// On a device: an i32 that a kernel sets.
    flag: Option<Tensor>,
}

impl Sum {
    pub fn add(&mut self, x: &Tensor) -> Result<()> {
        if let Some(kernels) = kernels::on(x.device()) {
            let flag = match self.flag.take() {
                Some(flag) => flag,
                None => kernels.flag()?,
            };
            let noted = kernels.note_not_finite(x, &flag)?;
            self.flag = Some(flag);
            if noted {
                return Ok(());
            }
        }
        // Zero times what is not finite is NaN, and so is every sum of it.
        let nothing = (x.to_dtype(DType::F32)? * 0.0)?.sum_all()?;
        self.sum = Some(match self.sum.take() {
            Some(sum) => (sum + nothing)?,
            None => nothing,
        });
        Ok(())
    }

    /// Whether everything added was finite.
    pub fn is_finite(&self) -> Result<bool> {
        let sum = self.sum.as_ref().map_or(Ok(0.0), Tensor::to_scalar::<f32>)?;
        let flags = self.flag.as_ref().map_or(Ok(vec![0]), Tensor::to_vec1::<i32>)?;
        Ok(!sum.is_nan() && flags.iter().all(|&flag| flag == 0))
    }
}

/// The same for each element of the first axis.
pub fn finite_each(x: &Tensor) -> Result<Vec<bool>> {
    let n = x.dim(0)?;
    if x.elem_count() == 0 {
        return Ok(vec![true; n]);
    }
    let rows = (x.to_dtype(DType::F32)? * 0.0)?.reshape((n, ()))?;
    let nothing: Vec<f32> = rows.sum(1)?.to_vec1()?;
    Ok(nothing.into_iter().map(|nothing| !nothing.is_nan()).collect())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn one_number_that_is_none_is_found() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let x = Tensor::new(&[[1f32, f32::MAX], [bad, 0.0], [f32::MIN, -3.0]], &Device::Cpu);
            let x = x.unwrap();
            assert!(!finite(&x).unwrap());
            assert_eq!(finite_each(&x).unwrap(), [true, false, true]);
            let rest = x.narrow(0, 2, 1).unwrap();
            assert!(finite(&rest).unwrap() && finite_each(&rest).unwrap() == [true]);
        }
        let halves = Tensor::new(&[[7e4f32]], &Device::Cpu).unwrap().to_dtype(DType::F16).unwrap();
        assert!(!finite(&halves).unwrap());
        let none = Tensor::zeros((2, 0), DType::F32, &Device::Cpu).unwrap();
        assert!(finite(&none).unwrap() && finite_each(&none).unwrap() == [true, true]);
    }
}

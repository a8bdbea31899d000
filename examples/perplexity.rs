// SPDX-License-Identifier: MPL-2.0
//! What number formats cost a language model: the perplexity of a text under its decoder, with the
//! weights in some format or rounded, or with the keys and values of what came before in one of the store's.
//!
//! ```text
//! cargo run --example perplexity -- --model /tmp/smollm2 --text LICENSE --dtype q8
//! cargo run --example perplexity -- --model /tmp/smollm2 --text LICENSE --stores f16,q8,q4,q2
//! cargo run --example perplexity -- --model /tmp/smollm2 --text LICENSE --rounded 8,4,3
//! ```
//!
//! `tools/smollm2` makes such a model's folder.

use std::error::Error;
use std::path::{Path, PathBuf};

use candle_core::{D, DType, Device, Tensor};
use clap::Parser;
use gststreamkvqa::memory::kv::Kv;
use gststreamkvqa::memory::store::codec::{Codec, decode, encode};
use gststreamkvqa::model::DTypeChoice;
use gststreamkvqa::model::attention::{Stage, Visible, attend};
use gststreamkvqa::model::decoder::{Attend, Decoder};
use gststreamkvqa::model::rope::Positions;
use gststreamkvqa::{EngineError, LoadOptions, VideoLlm};

#[derive(Parser)]
#[command(about = "Print the perplexity of a text")]
struct Args {
    /// Hugging Face folder of the model.
    #[arg(long)]
    model: PathBuf,
    #[arg(long)]
    text: PathBuf,
    /// Number formats of the weights: auto, f32, bf16, f16, q8. All after the first are compared with it.
    #[arg(long = "dtype", value_delimiter = ',', default_value = "f32")]
    dtypes: Vec<DTypeChoice>,
    /// Number formats of the store, for keys and values of the first half of each window: the second
    /// half is what is measured then.
    #[arg(long, value_delimiter = ',')]
    stores: Vec<Codec>,
    /// Then also the first format with the layers' weights rounded to so many bits, in groups of 32 inputs
    /// with a scale each. This is simulated: the engine has no such format.
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u8).range(2..=8))]
    rounded: Vec<u8>,
    /// Tokens that are read together.
    #[arg(long, default_value_t = 512)]
    window: usize,
    /// Windows that are read, from the beginning.
    #[arg(long, default_value_t = 16)]
    windows: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let text = std::fs::read_to_string(&args.text)?;
    let mut reference = None;
    let plain = args.dtypes.iter().map(|&dtype| (dtype, None));
    let first = args.dtypes.first().copied().unwrap_or_default();
    for (dtype, bits) in plain.chain(args.rounded.iter().map(|&bits| (first, Some(bits)))) {
        let options = LoadOptions { dtype, ..LoadOptions::default() };
        let model = match bits {
            None => VideoLlm::load(&args.model, &options)?,
            Some(bits) => {
                let folder = tempfile::tempdir()?;
                write_rounded(&args.model, folder.path(), bits)?;
                VideoLlm::load(folder.path(), &options)?
            }
        };
        let ids = model.prompts().plain(&text)?;
        let windows =
            || ids.chunks(args.window).filter(|window| window.len() > 1).take(args.windows);
        let stores: Vec<Option<Codec>> = match args.stores.as_slice() {
            [] => vec![None],
            stores => std::iter::once(None).chain(stores.iter().copied().map(Some)).collect(),
        };
        let rounded = bits.map_or(String::new(), |bits| format!(" rounded to {bits} bits"));
        for store in stores {
            let scores: Vec<Scores> = windows()
                .map(|ids| scores(model.decoder(), ids, store, !args.stores.is_empty()))
                .collect::<Result<_, _>>()?;
            let stored = store.map_or(String::new(), |codec| format!(", store {codec}"));
            let format = model.weights_format();
            println!("weights {format}{rounded}{stored}: {}", line(&scores, &reference));
            reference.get_or_insert(scores);
        }
    }
    Ok(())
}

/// Copies a model's folder, with the weights of its layers rounded.
fn write_rounded(from: &Path, to: &Path, bits: u8) -> Result<(), Box<dyn Error>> {
    for entry in std::fs::read_dir(from)? {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        if path.extension().is_none_or(|ending| ending != "safetensors") {
            std::fs::copy(&path, to.join(name))?;
            continue;
        }
        let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu)?;
        for (name, tensor) in &mut tensors {
            if name.contains("layers.") && tensor.dims().len() == 2 {
                *tensor = round(tensor, bits)?;
            }
        }
        candle_core::safetensors::save(&tensors, to.join(name))?;
    }
    Ok(())
}

/// Weights `[outputs, inputs]` in groups of 32 inputs, each a multiple of a step that puts the group's
/// largest at the end of the range.
fn round(weights: &Tensor, bits: u8) -> candle_core::Result<Tensor> {
    const GROUP: usize = 32;
    let (outputs, inputs) = weights.dims2()?;
    if inputs % GROUP != 0 {
        return Ok(weights.clone());
    }
    let groups = weights.to_dtype(DType::F32)?.reshape((outputs, inputs / GROUP, GROUP))?;
    let most = f64::from((1u32 << (bits - 1)) - 1);
    let step = (groups.abs()?.max_keepdim(D::Minus1)? / most)?.maximum(1e-12)?;
    let codes = groups.broadcast_div(&step)?.round()?;
    codes.broadcast_mul(&step)?.reshape((outputs, inputs))?.to_dtype(weights.dtype())
}

/// Of the tokens of a window that are measured.
struct Scores {
    /// Logarithms of the probabilities of all that may come, `[n, vocab]`.
    all: Tensor,
    /// The token that came.
    next: Vec<u32>,
}

fn scores(
    decoder: &Decoder,
    ids: &[u32],
    store: Option<Codec>,
    second_half: bool,
) -> Result<Scores, EngineError> {
    let stored = if second_half { ids.len() / 2 } else { 0 };
    let mut pass = Pass { decoder, stored, store };
    let states = decoder.forward(&decoder.embed(ids)?, &mut pass)?;
    let first = stored.saturating_sub(1);
    let logits = decoder.logits(&states.narrow(0, first, ids.len() - 1 - first)?)?;
    let logits = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?)?;
    let all = logits.broadcast_sub(&logits.exp()?.sum_keepdim(D::Minus1)?.log()?)?;
    Ok(Scores { all, next: ids[first + 1..].to_vec() })
}

/// Perplexity; and how far the probabilities are from those of the reference.
fn line(scores: &[Scores], reference: &Option<Vec<Scores>>) -> String {
    let loss = |scores: &[Scores]| -> Result<(f64, usize), candle_core::Error> {
        let mut sum = 0.0;
        let mut count = 0;
        for Scores { all, next } in scores {
            let next = Tensor::from_slice(next, (next.len(), 1), all.device())?;
            sum -= f64::from(all.gather(&next, 1)?.sum_all()?.to_scalar::<f32>()?);
            count += next.dim(0)?;
        }
        Ok((sum / count.max(1) as f64, count))
    };
    let distance = |reference: &[Scores]| -> Result<(f64, f64), candle_core::Error> {
        let (mut divergence, mut same, mut count) = (0.0, 0.0, 0);
        for (a, b) in reference.iter().zip(scores) {
            let terms = (a.all.exp()? * (&a.all - &b.all)?)?;
            divergence += f64::from(terms.sum_all()?.to_scalar::<f32>()?);
            let best = |s: &Scores| s.all.argmax(D::Minus1)?.to_vec1::<u32>();
            let pairs = best(a)?.into_iter().zip(best(b)?);
            same += pairs.filter(|(a, b)| a == b).count() as f64;
            count += a.next.len();
        }
        Ok((divergence / count as f64, same / count as f64))
    };
    let of = || -> Result<String, candle_core::Error> {
        let (mean, count) = loss(scores)?;
        let mut line = format!("perplexity {:.4} of {count} tokens", mean.exp());
        if let Some(reference) = reference {
            let change = 100.0 * ((mean - loss(reference)?.0).exp() - 1.0);
            let (divergence, same) = distance(reference)?;
            line += &format!(", {change:+.2} %, divergence {divergence:.5}, best token {same:.4}");
        }
        Ok(line)
    };
    of().unwrap_or_else(|error| error.to_string())
}

/// Plain causal attention; from the token `stored` on, what lies before it is read from the store.
struct Pass<'a> {
    decoder: &'a Decoder,
    stored: usize,
    store: Option<Codec>,
}

impl Attend for Pass<'_> {
    fn attend(
        &mut self,
        _: usize,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
    ) -> Result<Tensor, EngineError> {
        let (_, n, _) = k.dims3()?;
        let (rope, scale) = (self.decoder.rope(), self.decoder.scale());
        let turned = |x: &Tensor, start: usize, n: usize| rope.rotate(x, &Positions::run(start, n));
        let (q, keys) = (turned(q, 0, n)?, turned(k, 0, n)?);
        let part = |x: &Tensor, start: usize, n: usize| x.narrow(1, start, n)?.contiguous();
        let visible = Visible::Window { offset: 0, width: usize::MAX / 4 };
        let Some(codec) = self.store else {
            return attend(&[Stage { q: &q, k: &keys, v, visible }], scale);
        };
        // As the store has them: keys before RoPE.
        let m = self.stored;
        let packed = encode(codec, &Kv { k: part(k, 0, m)?, v: part(v, 0, m)? })?;
        let Some(Kv { k: old_k, v: old_v }) = decode(packed.form, &packed.bytes)? else {
            return Err(EngineError::Question("what was encoded cannot be read".into()));
        };
        let old_k = turned(&old_k, 0, m)?;
        let (q_old, q_new) = (part(&q, 0, m)?, part(&q, m, n - m)?);
        let (k_new, v_new) = (part(&keys, m, n - m)?, part(v, m, n - m)?);
        let (k_exact, v_exact) = (part(&keys, 0, m)?, part(v, 0, m)?);
        let before = attend(&[Stage { q: &q_old, k: &k_exact, v: &v_exact, visible }], scale)?;
        let after = attend(
            &[
                Stage { q: &q_new, k: &old_k, v: &old_v, visible: Visible::All },
                Stage { q: &q_new, k: &k_new, v: &v_new, visible },
            ],
            scale,
        )?;
        Ok(Tensor::cat(&[before, after], 1)?)
    }
}

// SPDX-License-Identifier: MPL-2.0
//! A launcher that has Triton's interpreter run the kernels, in a process of its own.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use candle_core::{CpuStorage, Error, Layout, Result, Storage, Tensor};
use gststreamkvqa::model::kernels::launch::{Arg, Launch, Launcher};
use half::{bf16, f16};
use serde_json::{Value, json};

pub struct Emulator(Mutex<Server>);

struct Server {
    process: Child,
    requests: ChildStdin,
    answers: ChildStdout,
}

impl Emulator {
    /// `command`: a program and its arguments, by spaces.
    pub fn start(command: &str) -> Self {
        let mut words = command.split_whitespace();
        let mut process = Command::new(words.next().expect("a command"))
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{command}: {e}"));
        let requests = process.stdin.take().unwrap();
        let answers = process.stdout.take().unwrap();
        Self(Mutex::new(Server { process, requests, answers }))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
    }
}

impl Launcher for Emulator {
    fn generation(&self) -> u32 {
        80
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<()> {
        launch.check()?;
        let (mut args, mut buffers, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
        for arg in launch.args {
            args.push(match *arg {
                Arg::Read(x) | Arg::Write(x) => {
                    let before = bytes.len();
                    append(x, &mut bytes)?;
                    let elements = (bytes.len() - before) / x.dtype().size_in_bytes();
                    buffers.push(json!({
                        "dtype": x.dtype().as_str(),
                        "elements": elements,
                        "written": matches!(arg, Arg::Write(_)),
                    }));
                    json!({"buffer": buffers.len() - 1, "offset": 0})
                }
                Arg::I32(n) => json!({ "i32": n }),
                Arg::I64(n) => json!({ "i64": n }),
                Arg::F32(x) => json!({ "f32": x }),
            });
        }
        let request = json!({
            "kernel": launch.variant.kernel,
            "dtype": launch.variant.dtype,
            "constants": launch.variant.constants,
            "grid": launch.grid,
            "args": args,
            "buffers": buffers,
        });
        let written =
            self.0.lock().unwrap().ask(&request, &bytes, &buffers).map_err(Error::wrap)?;
        let written = written.map_err(Error::msg)?;
        let outputs = launch.args.iter().filter_map(|arg| match arg {
            Arg::Write(x) => Some(*x),
            _ => None,
        });
        for (x, bytes) in outputs.zip(written) {
            x.inplace_op1(&Overwrite(bytes))?;
        }
        Ok(())
    }
}

type Answer = std::result::Result<Vec<Vec<u8>>, String>;

impl Server {
    fn ask(&mut self, request: &Value, bytes: &[u8], buffers: &[Value]) -> std::io::Result<Answer> {
        let request = request.to_string();
        self.requests.write_all(&(request.len() as u32).to_le_bytes())?;
        self.requests.write_all(request.as_bytes())?;
        self.requests.write_all(bytes)?;
        self.requests.flush()?;
        let status = self.number()?;
        if status != 0 {
            let length = self.number()?;
            let message = self.take(length as usize)?;
            return Ok(Err(String::from_utf8_lossy(&message).into_owned()));
        }
        let mut written = Vec::new();
        for buffer in buffers.iter().filter(|buffer| buffer["written"] == true) {
            let size = match buffer["dtype"].as_str() {
                Some("bf16" | "f16") => 2,
                Some("i64") => 8,
                _ => 4,
            };
            written.push(self.take(size * buffer["elements"].as_u64().unwrap_or(0) as usize)?);
        }
        Ok(Ok(written))
    }

    fn number(&mut self) -> std::io::Result<u32> {
        let mut bytes = [0; 4];
        self.answers.read_exact(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn take(&mut self, length: usize) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.answers.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

/// Everything from a view's first element on.
fn append(x: &Tensor, bytes: &mut Vec<u8>) -> Result<()> {
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else { return Err(Error::msg("not on the CPU")) };
    let from = layout.start_offset();
    match storage {
        CpuStorage::F32(x) => x[from..].iter().for_each(|x| bytes.extend(x.to_le_bytes())),
        CpuStorage::F16(x) => x[from..].iter().for_each(|x| bytes.extend(x.to_le_bytes())),
        CpuStorage::BF16(x) => x[from..].iter().for_each(|x| bytes.extend(x.to_le_bytes())),
        CpuStorage::I32(x) => x[from..].iter().for_each(|x| bytes.extend(x.to_le_bytes())),
        CpuStorage::I64(x) => x[from..].iter().for_each(|x| bytes.extend(x.to_le_bytes())),
        CpuStorage::U32(x) => x[from..].iter().for_each(|x| bytes.extend(x.to_le_bytes())),
        _ => return Err(Error::msg("a format that kernels do not know")),
    }
    Ok(())
}

/// What a kernel has made of everything from a view's first element on.
struct Overwrite(Vec<u8>);

impl candle_core::InplaceOp1 for Overwrite {
    fn name(&self) -> &'static str {
        "overwrite"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let from = layout.start_offset();
        let (four, two) = (self.0.as_chunks::<4>().0, self.0.as_chunks::<2>().0);
        match storage {
            CpuStorage::F32(all) => {
                all[from..].iter_mut().zip(four).for_each(|(x, b)| *x = f32::from_le_bytes(*b));
            }
            CpuStorage::I32(all) => {
                all[from..].iter_mut().zip(four).for_each(|(x, b)| *x = i32::from_le_bytes(*b));
            }
            CpuStorage::U32(all) => {
                all[from..].iter_mut().zip(four).for_each(|(x, b)| *x = u32::from_le_bytes(*b));
            }
            CpuStorage::I64(all) => {
                let eight = self.0.as_chunks::<8>().0;
                all[from..].iter_mut().zip(eight).for_each(|(x, b)| *x = i64::from_le_bytes(*b));
            }
            CpuStorage::F16(all) => {
                all[from..].iter_mut().zip(two).for_each(|(x, b)| *x = f16::from_le_bytes(*b));
            }
            CpuStorage::BF16(all) => {
                all[from..].iter_mut().zip(two).for_each(|(x, b)| *x = bf16::from_le_bytes(*b));
            }
            _ => return Err(Error::msg("a format that kernels do not write")),
        }
        Ok(())
    }
}

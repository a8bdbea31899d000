// SPDX-License-Identifier: MPL-2.0
//! `tools/real-size/write.py` makes folders like the published ones; the fixture is one of them,
//! shrunk (`write.py llava-onevision-qwen2-0.5b-ov-hf DIR --shrink --shard-gb 0.00015`). The sizes
//! themselves are for `tools/real-size/run.sh`.

mod common;

use candle_core::DType;
use common::fixture;
use gststreamkvqa::model::{DTypeChoice, DeviceChoice};
use gststreamkvqa::{Frame, LoadOptions, Question, Recipe, Stream, VideoLlm};

fn load(dtype: DTypeChoice) -> VideoLlm {
    let options = LoadOptions { dtype, device: DeviceChoice::Cpu, ..LoadOptions::default() };
    VideoLlm::load(fixture("ov-shrunk"), &options).unwrap()
}

/// Ids and first logits of an answer about a clip.
fn answer(model: &VideoLlm, method: &str) -> (Vec<u32>, Vec<f32>) {
    let mut stream = Stream::new(model.clone(), Recipe::named(method).unwrap()).unwrap();
    for second in 0..6u8 {
        let rgb = (0..64 * 48 * 3).map(|i| (i * usize::from(second + 3) % 256) as u8).collect();
        stream.push(&Frame::new(rgb, 64, 48, f64::from(second)).unwrap()).unwrap();
    }
    let mut question = Question::new("What happens in the video?").max_tokens(8);
    question.keep_logits = true;
    let answer = stream.ask(&question, |_| ()).unwrap();
    (answer.ids, answer.first_logits.unwrap())
}

#[test]
fn made_up_weights_take_what_read_ones_take_and_need_no_files() {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture("ov-shrunk")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "json") {
            std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    let made_up = |seed, dtype| {
        let device = DeviceChoice::Cpu;
        let options = LoadOptions { dtype, device, made_up: Some(seed), ..LoadOptions::default() };
        VideoLlm::load(folder.path(), &options).unwrap()
    };
    for dtype in [DTypeChoice::Auto, DTypeChoice::F32, DTypeChoice::Q8] {
        let (read, made_up) = (load(dtype), made_up(1, dtype));
        assert_eq!(made_up.weights_dtype(), read.weights_dtype());
        assert_eq!(made_up.weight_bytes(), read.weight_bytes());
    }
    let one = answer(&made_up(1, DTypeChoice::F32), "rekv");
    assert_eq!(one, answer(&made_up(1, DTypeChoice::F32), "rekv"));
    assert_ne!(one.1, answer(&made_up(2, DTypeChoice::F32), "rekv").1);
}

#[test]
fn a_shrunken_sharded_checkpoint_answers_alike_in_bf16_and_f32() {
    let (own, wide) = (load(DTypeChoice::Auto), load(DTypeChoice::F32));
    assert_eq!((own.weights_dtype(), wide.weights_dtype()), (DType::BF16, DType::F32));
    // All of the weights are bf16 but the vectors, which are few.
    assert!(own.weight_bytes() < wide.weight_bytes() * 52 / 100);
    // 70 / 14 = 5 patches a side, which pool to 3.
    let frame = Frame::new(vec![0; 64 * 48 * 3], 64, 48, 0.0).unwrap();
    assert_eq!(own.picture(&frame).unwrap().tokens(), 9);
    for method in ["full", "streamkv"] {
        let ((ids, logits), (wide_ids, wide_logits)) =
            (answer(&own, method), answer(&wide, method));
        assert_eq!(ids.len(), 8, "{method}");
        assert_eq!(ids, wide_ids, "{method}");
        common::assert_close(&logits, &wide_logits, 1e-4, method);
    }
}

/// Weights of eight bits, and inputs of as many (seven without VNNI): logits differ by a part of their own spread.
/// A method chooses what to keep, and of made-up weights come scores so close to each other that it may choose
/// otherwise. Embeddings stay bf16 here, and are small beside the layers.
#[test]
fn a_checkpoint_in_eight_bits_takes_half_of_bf16_and_answers_nearly_alike() {
    let (eight, own, wide) =
        (load(DTypeChoice::Q8), load(DTypeChoice::Auto), load(DTypeChoice::F32));
    assert_eq!((eight.weights_format(), own.weights_format()), ("q8", "bf16"));
    assert!(eight.weight_bytes() < own.weight_bytes(), "{}", eight.weight_bytes());
    for (method, bound) in [("full", 0.05), ("streamkv", 0.2)] {
        let ((_, logits), (_, exact)) = (answer(&eight, method), answer(&wide, method));
        let mean = exact.iter().sum::<f32>() / exact.len() as f32;
        let spread = exact.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / exact.len() as f32;
        let apart = exact.iter().zip(&logits).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
        let apart = (apart / exact.len() as f32 / spread).sqrt();
        println!("{method}: {apart}");
        assert!(apart > 0.0 && apart < bound, "{method}: {apart} of the logits' spread");
    }
}

// SPDX-License-Identifier: MPL-2.0
//! A fixture beside what transformers makes of it.
#![allow(dead_code)] // each test binary uses its part

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use gststreamkvqa::model::LoadOptions;
use gststreamkvqa::model::attention::{self, Stage, Visible};
use gststreamkvqa::model::decoder::Attend;
use gststreamkvqa::model::rope::Positions;
use gststreamkvqa::model::vision::{Moment, Picture};
use gststreamkvqa::{
    Answer, Cancel, Finish, Frame, Question, Recipe, Result, Stream, StreamOptions, VideoLlm,
};
use serde_json::Value;

use super::{assert_close, fixture, tensors};

pub struct Fixture {
    pub model: VideoLlm,
    pub tensors: HashMap<String, Tensor>,
    pub expected: Value,
}

impl Fixture {
    /// The model lies beside what is expected of it, or is one of those that ship.
    pub fn open(name: &str) -> Self {
        let json = std::fs::read_to_string(fixture(name).join("expected.json")).unwrap();
        let beside = fixture(name);
        let ships = Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(name);
        let folder = if beside.join("config.json").exists() { beside } else { ships };
        Self {
            model: VideoLlm::load(folder, &LoadOptions::default()).unwrap(),
            tensors: tensors(&fixture(name).join("expected.safetensors")),
            expected: serde_json::from_str(&json).unwrap(),
        }
    }

    pub fn rate(&self) -> f64 {
        self.expected["fps"].as_f64().unwrap()
    }

    pub fn frames(&self) -> Vec<Frame> {
        self.frames_from(0.0)
    }

    pub fn frames_from(&self, start: f64) -> Vec<Frame> {
        let frames = &self.tensors["frames"];
        let (n, height, width, _) = frames.dims4().unwrap();
        let frame = |i: usize| {
            let rgb = frames.get(i).unwrap().flatten_all().unwrap().to_vec1::<u8>().unwrap();
            Frame::new(rgb, width, height, start + i as f64 / self.rate()).unwrap()
        };
        (0..n).map(frame).collect()
    }

    pub fn picture(&self) -> Picture {
        self.model.picture(&self.frames()[0]).unwrap()
    }

    pub fn units(&self) -> Tensor {
        self.model.encode_frames(&self.frames(), &self.picture(), &Cancel::new()).unwrap()
    }

    /// What is told of each unit.
    pub fn moments(&self) -> Vec<Moment> {
        let per_unit = self.model.frames_per_unit();
        let moment = |(at, pair): (usize, &[Frame])| {
            let (first, last) = (pair.first().unwrap(), pair.last().unwrap());
            Moment { frame: (per_unit * at) as u64, seconds: (first.time() + last.time()) / 2.0 }
        };
        self.frames().chunks(per_unit).enumerate().map(moment).collect()
    }

    pub fn stream(&self, recipe: Recipe, compat: bool) -> Stream {
        let options = StreamOptions { mrope_compat: compat, ..StreamOptions::default() };
        Stream::open(self.model.clone(), recipe, options).unwrap()
    }

    /// Pixels are those of the processor, where there is a grid of patches that is the same as well.
    #[track_caller]
    pub fn assert_pixels(&self, what: &str) {
        let picture = self.picture();
        if self.expected["grid"].is_array() {
            let grid = ids(&self.expected["grid"]);
            assert_eq!([picture.rows * 2, picture.cols * 2], [grid[1] as usize, grid[2] as usize]);
        }
        let made = self.model.vision().pixels(&self.frames(), &picture, &Device::Cpu).unwrap();
        let expected = &self.tensors["pixel_values"];
        assert_eq!(made.dims(), expected.dims(), "{what}");
        assert_close(&flat(&made), &flat(expected), 1e-5, what);
    }

    /// Unit tokens are those of transformers, in a batch and alone.
    #[track_caller]
    pub fn assert_units(&self, what: &str) {
        let (units, expected) = (self.units(), &self.tensors["pooled"]);
        assert_eq!(units.dims(), expected.dims(), "{what}");
        assert_close(&flat(&units), &flat(expected), 1e-4, what);
        for (i, own) in self.frames().chunks(self.model.frames_per_unit()).enumerate() {
            let alone = self.model.encode_frames(own, &self.picture(), &Cancel::new()).unwrap();
            let batched = flat(&units.get(i).unwrap());
            assert_close(&flat(&alone), &batched, 1e-5, &format!("{what} unit {i}"));
        }
    }

    /// A stream that keeps everything says word for word what stock `generate` does, up to so many
    /// tokens, and its first logits are those of transformers. `rule`: how the fixture names what
    /// `compat` switches.
    #[track_caller]
    pub fn assert_answers(&self, (rule, compat): (&str, bool), tokens: usize, what: &str) {
        let mut stream = self.stream(Recipe::named("full").unwrap(), compat);
        stream.push_frames(&self.frames()).unwrap();
        for (i, question, text) in self.questions() {
            let what = format!("{what} {rule}{text}");
            let answer = ask(&stream, text, tokens);
            let mut wanted = ids(&question[format!("{rule}greedy_ids")]);
            let ended = question[format!("{rule}stopped_at_eos")].as_bool().unwrap();
            assert!(ended || wanted.len() == tokens, "{what}");
            if ended {
                wanted.pop();
            }
            assert_eq!(answer.ids, wanted, "{what}");
            assert_eq!(answer.finish, if ended { Finish::Stop } else { Finish::Length });
            let expected = flat(&self.tensors[&format!("{rule}logits_q{i}")]);
            let found = answer.first_logits.unwrap();
            assert_close(&found, &expected[expected.len() - found.len()..], 1e-4, &what);
        }
    }

    pub fn questions(&self) -> impl Iterator<Item = (usize, &Value, &str)> {
        let questions = self.expected["questions"].as_array().unwrap().iter();
        questions.enumerate().map(|(i, q)| (i, q, q["question"].as_str().unwrap()))
    }
}

pub fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

pub fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

pub fn ask(stream: &Stream, text: &str, max_tokens: usize) -> Answer {
    let question = Question { keep_logits: true, ..Question::new(text).max_tokens(max_tokens) };
    stream.ask(&question, |_| {}).unwrap()
}

pub fn first_logits(stream: &Stream, text: &str) -> Vec<f32> {
    ask(stream, text, 1).first_logits.unwrap()
}

pub fn differ(a: &[f32], b: &[f32]) -> bool {
    a.iter().zip(b).any(|(a, b)| (a - b).abs() > 1e-3)
}

/// The method as it is where there is no text-image model to rank with.
pub fn internal(method: &str) -> Recipe {
    let mut recipe = Recipe::named(method).unwrap();
    if recipe.options().iter().any(|option| option.name == "experts") {
        recipe.set("experts", "internal").unwrap();
    }
    recipe
}

/// Plain causal attention with given positions: what a stock decoder does.
pub struct Causal<'a> {
    pub model: &'a VideoLlm,
    pub positions: Positions,
}

impl Attend for Causal<'_> {
    fn attend(&mut self, _: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let rope = self.model.decoder().rope();
        let (q, k) = (rope.rotate(q, &self.positions)?, rope.rotate(k, &self.positions)?);
        let visible = Visible::Window { offset: 0, width: usize::MAX };
        attention::attend(&[Stage { q: &q, k: &k, v, visible }], self.model.decoder().scale())
    }
}

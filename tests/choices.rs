// SPDX-License-Identifier: MPL-2.0
//! Answers to choose from, by the model's own probabilities, and how sure it is of a free one; against
//! plain attention over the whole sequence.

mod common;

use candle_core::{DType, Tensor};
use common::against::Causal;
use common::{fixture, frames_of, tensors};
use gststreamkvqa::model::prompt::PromptStyle;
use gststreamkvqa::model::rope::Positions;
use gststreamkvqa::{
    Answer, Cancel, EngineError, Finish, Frame, LoadOptions, Question, Recipe, Stream, VideoLlm,
};

const TEXT: &str = "what?";
/// Words of several tokens, one that begins another, and digits, which have no capitals.
const CHOICES: [&str; 5] = ["ring", "7", "ring road", "Paris", "77"];

struct Fixture {
    model: VideoLlm,
    frames: Vec<Frame>,
}

impl Fixture {
    fn open(name: &str) -> Self {
        let mut tensors = tensors(&fixture(name).join("expected.safetensors"));
        Self {
            model: VideoLlm::load(fixture(name), &LoadOptions::default()).unwrap(),
            frames: frames_of(&tensors.remove("frames").unwrap()),
        }
    }

    fn units(&self) -> Tensor {
        let picture = self.model.picture(&self.frames[0]).unwrap();
        self.model.encode_frames(&self.frames, &picture, &Cancel::new()).unwrap()
    }
}

fn seen(fixture: &Fixture) -> Stream {
    let recipe = Recipe::named("full").unwrap();
    let mut stream = Stream::new(fixture.model.clone(), recipe).unwrap();
    stream.push_frames(&fixture.frames).unwrap();
    stream
}

fn choose(stream: &Stream, choices: &[&str]) -> Answer {
    let question = Question::new(TEXT).choices(choices.iter().copied());
    let mut told = String::new();
    let answer = stream.ask(&question, |text| told.push_str(text)).unwrap();
    assert_eq!(told, answer.text);
    answer
}

/// Log-probabilities of these tokens and of each end of the turn behind them, all in one pass.
fn likely(fixture: &Fixture, ids: &[u32]) -> (Vec<f64>, f64) {
    let (model, decoder) = (&fixture.model, fixture.model.decoder());
    let prompts = model.prompts();
    let opening = prompts.opening(PromptStyle::default(), None, "").unwrap();
    let tail = prompts.tail(PromptStyle::default(), None, TEXT).unwrap();
    let units = fixture.units().flatten(0, 1).unwrap();
    let mut parts = vec![decoder.embed(&opening).unwrap(), units];
    if tail.newline {
        parts.push(model.image_newline().unwrap().clone());
    }
    parts.push(decoder.embed(&[&tail.ids, ids].concat()).unwrap());
    let sequence = Tensor::cat(&parts, 0).unwrap();
    let positions = Positions::run(0, sequence.dim(0).unwrap());
    let hidden = decoder.forward(&sequence, &mut Causal { model, positions }).unwrap();
    let last = hidden.narrow(0, hidden.dim(0).unwrap() - ids.len() - 1, ids.len() + 1).unwrap();
    let logits = decoder.logits(&last).unwrap().to_dtype(DType::F32).unwrap();
    let rows: Vec<Vec<f32>> = logits.to_vec2().unwrap();
    let of = |row: &Vec<f32>, id: u32| {
        let all: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
        f64::from(row[id as usize]) - all.ln()
    };
    let said = ids.iter().zip(&rows).map(|(&id, row)| of(row, id)).collect();
    let behind = rows.last().unwrap();
    let ends = (0..behind.len() as u32).filter(|&id| prompts.is_end(id));
    let ends = ends.map(|id| of(behind, id).exp());
    (said, ends.sum::<f64>().ln())
}

#[test]
fn choices_have_the_probabilities_of_their_tokens() {
    for name in ["ov-odd", "ov-even"] {
        let fixture = Fixture::open(name);
        let of = |text: &str| {
            let (said, end) = likely(&fixture, &fixture.model.prompts().plain(text).unwrap());
            (said.iter().sum::<f64>() + end).exp()
        };
        let both = |a: &str, b: &str| of(a) + of(b);
        let wanted = [
            both("ring", "Ring"),
            of("7"),
            both("ring road", "Ring road"),
            both("Paris", "paris"),
            of("77"),
        ];
        let total: f64 = wanted.iter().sum();
        let answer = choose(&seen(&fixture), &CHOICES);
        assert_eq!(answer.finish, Finish::Stop);
        for (choice, (text, wanted)) in answer.choices.iter().zip(CHOICES.iter().zip(wanted)) {
            assert_eq!(&choice.text, text);
            let (found, wanted) = (choice.probability, wanted / total);
            assert!((found / wanted - 1.0).abs() < 1e-3, "{name} {text}: {found}, not {wanted}");
        }
        let most = answer.choices.iter().max_by(|a, b| a.probability.total_cmp(&b.probability));
        assert_eq!(answer.text, most.unwrap().text);
        let (said, _) = likely(&fixture, &answer.ids);
        let mean = said.iter().sum::<f64>() / said.len() as f64;
        assert!((answer.confidence.unwrap() - mean).abs() < 1e-4, "{name}");
    }
}

#[test]
fn where_no_choice_begins_another_the_end_does_not_count() {
    let fixture = Fixture::open("ov-odd");
    let prompts = fixture.model.prompts();
    let of = |text: &str| {
        let (said, _) = likely(&fixture, &prompts.plain(text).unwrap());
        said.iter().sum::<f64>().exp()
    };
    let (seven, many) = (of("7"), of("12"));
    let answer = choose(&seen(&fixture), &["7", "12"]);
    let found = answer.choices[0].probability;
    assert!((found - seven / (seven + many)).abs() < 1e-4, "{found}");
}

#[test]
fn the_order_of_choices_changes_nothing_and_nothing_is_left_behind() {
    let fixture = Fixture::open("ov-odd");
    let stream = seen(&fixture);
    let free = |stream: &Stream| stream.ask(&Question::new(TEXT), |_| {}).unwrap();
    let before = free(&stream);
    let mut turned = CHOICES;
    turned.reverse();
    let (there, back) = (choose(&stream, &CHOICES), choose(&stream, &turned));
    for (a, b) in there.choices.iter().zip(back.choices.iter().rev()) {
        assert_eq!(a.text, b.text);
        assert!((a.probability - b.probability).abs() < 1e-6, "{a:?} {b:?}");
    }
    assert_eq!(there.evidence, before.evidence);
    assert_eq!(free(&stream).ids, before.ids);
}

#[test]
fn a_free_answer_says_how_sure_it_is() {
    for name in ["ov-odd", "ov-even"] {
        let fixture = Fixture::open(name);
        let question = Question::new(TEXT).max_tokens(9);
        let answer = seen(&fixture).ask(&question, |_| {}).unwrap();
        assert!(answer.ids.len() > 1 && answer.choices.is_empty());
        let (said, _) = likely(&fixture, &answer.ids);
        let mean = said.iter().sum::<f64>() / said.len() as f64;
        assert!((answer.confidence.unwrap() - mean).abs() < 1e-4, "{name}: {mean}");
    }
}

#[test]
fn choices_that_are_none_are_refused() {
    let fixture = Fixture::open("ov-odd");
    let stream = seen(&fixture);
    for (choices, said) in [(&["yes"][..], "two"), (&["a", ""], "empty"), (&["a", "A"], "twice")] {
        let question = Question::new(TEXT).choices(choices.iter().copied());
        let error = stream.ask(&question, |_| {}).unwrap_err();
        assert!(matches!(error, EngineError::Question(_)), "{error}");
        assert!(error.to_string().contains(said), "{error}");
    }
}

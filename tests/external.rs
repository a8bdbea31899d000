// SPDX-License-Identifier: MPL-2.0
//! Text-image pairs held against transformers, and retrieval by one. The weights of the fixtures are
//! random: they show numbers and the path, and nothing about accuracy. The pair that ships is for
//! that.

mod common;

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use candle_core::{DType, Device};
use common::{assert_close, fixture, frames_of, painted, tensors, toyworld_model};
use gststreamkvqa::model::text_image::TextImage;
use gststreamkvqa::{Cancel, EngineError, Frame, LoadOptions, Question, Recipe, Stream, VideoLlm};
use serde_json::{Value, json};
use toyworld::{Kind, QuestionOptions, StreamOptions, When, Wording, seeds};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/toyworld");
const PAIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/toyworld-pair");
const PAIRS: [&str; 2] = ["pair-siglip", "pair-clip"];

fn load(dir: &Path) -> gststreamkvqa::Result<TextImage> {
    TextImage::load(dir, &Device::Cpu, &LoadOptions::default())
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// A copy of a pair that can be damaged.
struct Copy(tempfile::TempDir);

impl Copy {
    fn of(pair: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for file in fs::read_dir(fixture(pair)).unwrap() {
            let file = file.unwrap().path();
            if !file.file_name().unwrap().to_str().unwrap().starts_with("expected") {
                fs::copy(&file, dir.path().join(file.file_name().unwrap())).unwrap();
            }
        }
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn edit(&self, file: &str, edit: impl FnOnce(&mut Value)) {
        let path = self.path().join(file);
        let mut value = json(&path);
        edit(&mut value);
        fs::write(path, value.to_string()).unwrap();
    }

    #[track_caller]
    fn refused(&self, words: &[&str]) {
        let message = match load(self.path()) {
            Ok(_) => panic!("loaded; expected an error with {words:?}"),
            Err(error) => error.to_string(),
        };
        let missing: Vec<_> = words.iter().filter(|word| !message.contains(**word)).collect();
        assert!(missing.is_empty(), "{missing:?} not in: {message}");
    }
}

#[test]
fn pictures_and_texts_are_what_transformers_makes_of_them() {
    for name in PAIRS {
        let dir = fixture(name);
        let pair = load(&dir).unwrap();
        let expected = tensors(&dir.join("expected.safetensors"));
        for shape in ["wide", "high"] {
            let frames = frames_of(&expected[&format!("{shape}.frames")]);
            let pixels = pair.pixels(&frames).unwrap();
            let stock = &expected[&format!("{shape}.pixel_values")];
            assert_eq!(pixels.dims(), stock.dims(), "{name} {shape}");
            let flat = |t: &candle_core::Tensor| t.flatten_all().unwrap().to_vec1().unwrap();
            // Less than half a grey level.
            assert_close(&flat(&pixels), &flat(stock), 1e-5, &format!("{name} {shape} pixels"));
            let stock = &expected[&format!("{shape}.embeddings")];
            let stock: Vec<Vec<f32>> = stock.to_dtype(DType::F32).unwrap().to_vec2().unwrap();
            let found = pair.images(&frames).unwrap();
            assert_eq!(found.len(), stock.len());
            for (found, stock) in found.iter().zip(&stock) {
                assert_close(found, stock, 1e-4, &format!("{name} {shape}"));
            }
        }
        let facts = json(&dir.join("expected.json"));
        for (index, fact) in facts["texts"].as_array().unwrap().iter().enumerate() {
            let text = fact["text"].as_str().unwrap();
            let ids: Vec<u32> = serde_json::from_value(fact["ids"].clone()).unwrap();
            assert_eq!(pair.token_ids(text).unwrap(), ids, "{name}: {text}");
            let stock: Vec<f32> = expected[&format!("text{index}")].to_vec1().unwrap();
            assert_close(&pair.text(text).unwrap(), &stock, 1e-4, &format!("{name}: {text}"));
        }
    }
}

#[test]
fn siglip_reads_small_letters_whatever_its_tokenizer_says() {
    let copy = Copy::of("pair-siglip");
    let small = load(copy.path()).unwrap().token_ids("what color is the ring?").unwrap();
    copy.edit("tokenizer.json", |file| file["normalizer"] = Value::Null);
    let pair = load(copy.path()).unwrap();
    assert_eq!(pair.token_ids("What COLOR is the ring?").unwrap(), small);
    copy.edit("tokenizer_config.json", |file| file["do_lower_case"] = json!(false));
    assert_ne!(load(copy.path()).unwrap().token_ids("What COLOR is the ring?").unwrap(), small);
}

#[test]
fn padding_is_the_tokenizers() {
    let copy = Copy::of("pair-siglip");
    let last = |copy: &Copy| *load(copy.path()).unwrap().token_ids("a").unwrap().last().unwrap();
    let end = last(&copy);
    copy.edit("tokenizer_config.json", |file| file["pad_token"] = json!("<pad>"));
    assert_eq!(last(&copy), end - 1, "<pad> is the token before </s>");
    copy.edit("tokenizer_config.json", |file| file["padding_side"] = json!("left"));
    assert_eq!(last(&copy), end);
    fs::remove_file(copy.path().join("tokenizer_config.json")).unwrap();
    assert_eq!(last(&copy), 1, "the default of SiglipTextConfig");
}

#[test]
fn a_spelt_out_end_token_ends_what_clip_reads() {
    let pair = load(&fixture("pair-clip")).unwrap();
    let whole = pair.text("a red ring").unwrap();
    let cut = pair.text("a red ring<|endoftext|> and a blue box").unwrap();
    assert_close(&cut, &whole, 1e-5, "what follows the end");
    let long = pair.text("a red ring and a blue box").unwrap();
    assert!(long.iter().zip(&whole).any(|(a, b)| (a - b).abs() > 0.1));
}

#[test]
fn a_pair_is_read_with_suspicion() {
    /// Pair, file, damage, words of the error.
    type Damage = (&'static str, &'static str, fn(&mut Value), &'static [&'static str]);
    let edits: [Damage; 14] = [
        ("pair-siglip", "config.json", |f| f["model_type"] = json!("blip"), &["blip", "clip"]),
        (
            "pair-clip",
            "config.json",
            |f| f["vision_config"]["patch_size"] = json!(0),
            &["config.json", "vision_config.patch_size", "0"],
        ),
        (
            "pair-siglip",
            "config.json",
            |f| f["text_config"]["num_attention_heads"] = json!(5),
            &["text_config.hidden_size", "32", "5"],
        ),
        (
            "pair-clip",
            "config.json",
            |f| f["text_config"]["hidden_act"] = json!("gelu"),
            &["text_config.hidden_act", "gelu", "quick_gelu"],
        ),
        (
            "pair-clip",
            "config.json",
            |f| f["vision_config"]["num_hidden_layers"] = json!(5),
            &["missing", "vision_model.encoder.layers.2"],
        ),
        (
            "pair-siglip",
            "config.json",
            |f| f["vision_config"]["num_hidden_layers"] = json!(2),
            &["no place", "vision_model.encoder.layers.2"],
        ),
        (
            "pair-siglip",
            "config.json",
            |f| f["text_config"]["vocab_size"] = json!(400),
            &["tokenizer.json", "508", "400"],
        ),
        (
            "pair-clip",
            "config.json",
            |f| f["projection_dim"] = json!(25),
            &["text_projection.weight", "[24, 32]", "[25, 32]"],
        ),
        (
            "pair-clip",
            "processor_config.json",
            |f| f["image_processor"]["crop_size"] = json!(40),
            &["processor_config.json", "crop_size", "40", "56"],
        ),
        (
            "pair-clip",
            "processor_config.json",
            |f| f["image_processor"]["size"] = json!({"shortest_edge": 50}),
            &["size", "50", "56"],
        ),
        (
            "pair-siglip",
            "preprocessor_config.json",
            |f| f["size"] = json!({"height": 60, "width": 61}),
            &["size", "60x61"],
        ),
        (
            "pair-siglip",
            "preprocessor_config.json",
            |f| f["do_resize"] = json!(false),
            &["do_resize"],
        ),
        (
            "pair-clip",
            "tokenizer.json",
            |f| f["post_processor"] = Value::Null,
            &["tokenizer.json", "end token"],
        ),
        ("pair-clip", "tokenizer.json", |f| f["model"] = json!(1), &["tokenizer.json"]),
    ];
    for (pair, file, edit, words) in edits {
        let copy = Copy::of(pair);
        copy.edit(file, edit);
        copy.refused(words);
    }
    let copy = Copy::of("pair-clip");
    let path = copy.path().join("model.safetensors");
    let mut weights = tensors(&path);
    weights.remove("vision_model.embeddings.class_embedding").unwrap();
    candle_core::safetensors::save(&weights, &path).unwrap();
    copy.refused(&["vision_model.embeddings.class_embedding"]);
    let removed = [
        ("pair-clip", "model.safetensors", "no weights"),
        ("pair-siglip", "model-00002-of-00002.safetensors", "model-00002-of-00002.safetensors"),
        ("pair-siglip", "preprocessor_config.json", "no processor settings"),
        ("pair-clip", "tokenizer.json", "tokenizer.json"),
    ];
    for (pair, file, word) in removed {
        let copy = Copy::of(pair);
        fs::remove_file(copy.path().join(file)).unwrap();
        copy.refused(&[word]);
    }
}

#[test]
fn what_a_folder_leaves_out_has_the_class_default() {
    let copy = Copy::of("pair-siglip");
    copy.edit("preprocessor_config.json", |file| {
        file.as_object_mut().unwrap().retain(|name, _| name == "size" || name == "resample");
    });
    let frames = vec![Frame::new(vec![51; 3 * 40 * 30], 40, 30, 0.0).unwrap()];
    let grey = |dir: &Path| load(dir).unwrap().pixels(&frames).unwrap();
    let found: Vec<f32> = grey(copy.path()).flatten_all().unwrap().to_vec1().unwrap();
    assert!(found.iter().all(|level| (level - (0.2 - 0.5) / 0.5).abs() < 1e-6));
}

#[test]
fn sizes_may_be_written_as_they_used_to_be() {
    let frames = frames(2);
    let pixels = |dir: &Path| -> Vec<f32> {
        load(dir).unwrap().pixels(&frames).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    };
    let copy = Copy::of("pair-clip");
    fs::remove_file(copy.path().join("processor_config.json")).unwrap();
    // OpenAI's own files of 2021.
    let old = json!({
        "crop_size": 56, "do_center_crop": true, "do_normalize": true, "do_resize": true,
        "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": [0.48145466, 0.4578275,
        0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3, "size": 56,
    });
    fs::write(copy.path().join("preprocessor_config.json"), old.to_string()).unwrap();
    assert_eq!(pixels(copy.path()), pixels(&fixture("pair-clip")));
}

#[test]
fn a_frame_too_thin_to_cut_a_square_out_of_is_refused() {
    let pair = load(&fixture("pair-clip")).unwrap();
    let frame = Frame::new(vec![0; 3 * 1000 * 2], 1000, 2, 7.0).unwrap();
    let message = pair.images(&[frame]).unwrap_err().to_string();
    assert!(message.contains("1000x2"), "{message}");
}

fn frames(n: usize) -> Vec<Frame> {
    let shade = |i: usize| vec![(i * 20 % 256) as u8; 64 * 48 * 3];
    (0..n).map(|i| Frame::new(shade(i), 64, 48, i as f64).unwrap()).collect()
}

fn asked(recipe: &Recipe) -> Result<Vec<Vec<u64>>, EngineError> {
    let mut stream = Stream::new(toyworld_model(), recipe.clone())?;
    stream.push_frames(&frames(12))?;
    let answer = stream.ask(&Question::new("what color is the ball?").max_tokens(2), |_| {})?;
    Ok(answer.layers.iter().map(|layer| layer.retrieved.clone()).collect())
}

fn recipe(name: &str, options: &[(&str, &str)]) -> Recipe {
    let mut recipe = Recipe::named(name).unwrap();
    for (key, value) in options {
        recipe.set(key, value).unwrap();
    }
    recipe
}

/// The `count` pictures that fit a text best by their cosine, best first.
fn best(text: &[f32], pictures: &[Arc<[f32]>], count: usize) -> Vec<u64> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let fit = |v: &[f32]| dot(v, text) / (dot(v, v) * dot(text, text)).sqrt();
    let mut fits: Vec<(u64, f32)> = (0..).zip(pictures.iter().map(|v| fit(v))).collect();
    fits.sort_by(|a, b| b.1.total_cmp(&a.1));
    fits.into_iter().take(count).map(|(unit, _)| unit).collect()
}

#[test]
fn an_outside_expert_ranks_alike_in_all_layers_and_beside_the_model_layer_by_layer() {
    for pair in PAIRS {
        let folder = fixture(pair);
        let folder = folder.to_str().unwrap();
        let outside = [("experts", "external"), ("external-model", folder), ("retrieve", "4")];
        let found = asked(&recipe("rekv", &outside)).unwrap();
        assert!(found.iter().all(|units| units.len() == 4 && *units == found[0]), "{found:?}");
        // What it found is what fits the question best by its own cosines.
        let expert = load(Path::new(folder)).unwrap();
        let question = expert.text("what color is the ball?").unwrap();
        let mut best = best(&question, &expert.images(&frames(12)).unwrap(), 4);
        best.sort_unstable();
        assert_eq!(found[0], best, "{pair}");
        let both = asked(&recipe("memstream", &[("external-model", folder), ("retrieve", "4")]));
        assert!(both.unwrap().iter().all(|units| units.len() == 4));
    }
}

#[test]
fn streams_of_a_model_share_the_pair_and_hear_how_far_it_has_come() {
    let model = toyworld_model();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let options = LoadOptions {
        progress: Some(Arc::new({
            let heard = heard.clone();
            move |at| heard.lock().unwrap().push((at.done, at.total))
        })),
        ..LoadOptions::default()
    };
    let pair = model.text_image(&fixture("pair-clip"), &options).unwrap();
    let (done, total) = *heard.lock().unwrap().last().unwrap();
    assert!(done == total && done > 0);
    let first = heard.lock().unwrap().len();
    let again = model.text_image(&fixture("pair-clip"), &options).unwrap();
    assert!(Arc::ptr_eq(&pair, &again) && heard.lock().unwrap().len() == first);
    let detour = fixture("pair-siglip").join("../pair-clip");
    assert!(Arc::ptr_eq(&pair, &model.text_image(&detour, &options).unwrap()));
    let other = model.text_image(&fixture("pair-siglip"), &options).unwrap();
    assert!(!Arc::ptr_eq(&pair, &other));
    // Nobody holds it any more: loaded anew.
    drop((pair, again));
    let before = heard.lock().unwrap().len();
    model.text_image(&fixture("pair-clip"), &options).unwrap();
    assert!(heard.lock().unwrap().len() > before);
}

#[test]
fn who_waits_for_anothers_load_gets_it_or_gives_up() {
    let model = toyworld_model();
    let (inside, entered) = std::sync::mpsc::channel();
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let gate = Mutex::new(Some(gate));
    let options = LoadOptions {
        // Stops at the first tensor until the gate opens.
        progress: Some(Arc::new(move |_| {
            if let Some(gate) = gate.lock().unwrap().take() {
                inside.send(()).unwrap();
                gate.recv().unwrap();
            }
        })),
        ..LoadOptions::default()
    };
    std::thread::scope(|scope| {
        let loader = scope.spawn(|| model.text_image(&fixture("pair-clip"), &options).unwrap());
        entered.recv().unwrap();
        let cancel = Cancel::new();
        cancel.raise();
        let impatient = LoadOptions { cancel, ..LoadOptions::default() };
        let gave_up = model.text_image(&fixture("pair-clip"), &impatient);
        assert!(matches!(gave_up, Err(EngineError::Cancelled)));
        let waiter = scope
            .spawn(|| model.text_image(&fixture("pair-clip"), &LoadOptions::default()).unwrap());
        go.send(()).unwrap();
        assert!(Arc::ptr_eq(&loader.join().unwrap(), &waiter.join().unwrap()));
    });
    // A load that fails leaves no place taken.
    let missing = Path::new("/nowhere");
    for _ in 0..2 {
        assert!(model.text_image(missing, &LoadOptions::default()).is_err());
    }
}

#[test]
fn without_a_folder_the_error_names_the_option() {
    let message = asked(&recipe("memstream", &[])).unwrap_err().to_string();
    assert!(
        message.contains("external-model") && message.contains("experts=internal"),
        "{message}"
    );
    let missing = asked(&recipe("memstream", &[("external-model", "/nowhere")]));
    let message = missing.unwrap_err().to_string();
    assert!(
        message.contains("/nowhere: there is no such folder")
            && message.contains("experts=internal"),
        "{message}"
    );
    let other = asked(&recipe("memstream", &[("external-model", MODEL)]));
    let message = other.unwrap_err().to_string();
    assert!(message.contains("model_type") && message.contains("siglip or clip"), "{message}");
    let unknown = asked(&recipe("memstream", &[("external-model", "hf:nobody/has-this")]));
    let message = unknown.unwrap_err().to_string();
    assert!(message.contains("nobody/has-this"), "{message}");
}

/// Of the frames that hold the answers to questions about what a single frame shows, the share that
/// the pair ranks before all others.
fn found_first(held_out: bool, wording: Wording) -> f64 {
    let pair = load(Path::new(PAIR)).unwrap();
    let told = [Kind::Where, Kind::Background, Kind::ColorOf, Kind::Exist, Kind::Count];
    let (mut found, mut there) = (0, 0);
    for seed in seeds::TEST.start..seeds::TEST.start + 3 {
        let options = StreamOptions { frames: 64, held_out, ..StreamOptions::default() };
        let video = toyworld::Stream::generate(seed, &options);
        let pictures = pair.images(&painted(&video)).unwrap();
        let kinds = told.to_vec();
        let options = QuestionOptions { count: 30, kinds, when: When::End, wording };
        for question in video.questions(0, &options) {
            let relevant: Vec<u64> =
                question.relevant.iter().cloned().flatten().map(|i| i as u64).collect();
            let first = best(&pair.text(&question.text).unwrap(), &pictures, relevant.len());
            found += first.iter().filter(|unit| relevant.contains(unit)).count();
            there += relevant.len();
        }
    }
    assert!(there > 100, "{there}");
    found as f64 / there as f64
}

#[test]
fn the_pair_that_ships_ranks_the_frames_first_that_hold_the_answer() {
    for (held_out, wording) in
        [(false, Wording::Trained), (true, Wording::Trained), (false, Wording::HeldOut)]
    {
        let share = found_first(held_out, wording);
        println!("held-out pairs: {held_out}, {wording:?}: {share:.3}");
        assert!(share > 0.9, "held-out pairs: {held_out}, {wording:?}: {share}");
    }
}

#[test]
fn the_model_that_ships_recommends_the_pair_beside_it() {
    let model = toyworld_model();
    let beside = Path::new(MODEL).join("../toyworld-pair");
    let mut recipe = Recipe::for_model("memstream", &model).unwrap();
    assert_eq!(recipe.outside_expert().unwrap(), Some(beside.as_path()));
    // What a user names is meant from where the user is.
    recipe.set("external-model", "pairs/mine").unwrap();
    assert_eq!(recipe.outside_expert().unwrap(), Some(Path::new("pairs/mine")));
    let mut rekv = Recipe::for_model("rekv", &model).unwrap();
    assert_eq!(rekv.outside_expert().unwrap(), None);
    rekv.set("experts", "external").unwrap();
    assert_eq!(rekv.outside_expert().unwrap(), Some(beside.as_path()));
}

#[test]
fn a_recommended_pair_that_is_missing_is_named_with_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let alone = home.path().join("toyworld");
    fs::create_dir(&alone).unwrap();
    for file in fs::read_dir(MODEL).unwrap() {
        let file = file.unwrap().path();
        fs::copy(&file, alone.join(file.file_name().unwrap())).unwrap();
    }
    let model = VideoLlm::load(&alone, &LoadOptions::default()).unwrap();
    let mut recipe = Recipe::for_model("memstream", &model).unwrap();
    let Err(error) = Stream::new(model.clone(), recipe.clone()) else {
        panic!("no pair, and yet a stream")
    };
    let message = error.to_string();
    for words in
        ["toyworld/../toyworld-pair", "no such folder", "streamkvqa.json", "experts=internal"]
    {
        assert!(message.contains(words), "{words} not in: {message}");
    }
    recipe.set("experts", "internal").unwrap();
    Stream::new(model.clone(), recipe).unwrap();
    // A name on the hub is no path.
    let json = r#"{"recipe": {"external_model": "hf:nobody/has-this"}}"#;
    fs::write(alone.join("streamkvqa.json"), json).unwrap();
    let model = VideoLlm::load(&alone, &LoadOptions::default()).unwrap();
    let recipe = Recipe::for_model("memstream", &model).unwrap();
    assert_eq!(recipe.outside_expert().unwrap(), Some(Path::new("hf:nobody/has-this")));
}

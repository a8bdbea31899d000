// SPDX-License-Identifier: MPL-2.0
//! Chat templates and tokenizers that are made to hurt: each is one error that names the file, soon,
//! and the process lives.

mod common;

use std::time::{Duration, Instant};

use common::Copy;
use gststreamkvqa::model::prompt::PromptStyle;
use gststreamkvqa::model::text_image::TextImage;
use serde_json::{Value, json};

/// A template that would render a prompt, if only it got there.
fn template(trouble: &str) -> String {
    let prompt = "{% for m in messages %}{% for p in m['content'] %}{% if p['type'] == 'video' %}\
                  {{ '<video>' }}{% else %}{{ p['text'] }}{% endif %}{% endfor %}{% endfor %}";
    format!("{trouble}{prompt}")
}

fn with_template(trouble: &str) -> Copy {
    let copy = Copy::of("ov-odd");
    copy.write("chat_template.jinja", &template(trouble));
    copy
}

#[track_caller]
fn refused(trouble: &str, said: &str) {
    let started = Instant::now();
    with_template(trouble).refused(&["chat_template.jinja", "chat template", said]);
    let took = started.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}: {}", &trouble[..60]);
}

#[test]
fn a_template_that_is_nested_too_deep_is_refused() {
    let deep = |n| {
        [
            format!("{{{{ {} true }}}}", "not ".repeat(n)),
            format!("{{{{ {} 1 }}}}", "-".repeat(n)),
            format!("{{{{ 'a'{} }}}}", "|upper".repeat(n)),
            format!("{{{{ messages{} }}}}", ".a".repeat(n)),
            format!("{{{{ messages{} }}}}", "[0]".repeat(n)),
            format!("{{{{ 1{} }}}}", " + 1".repeat(n)),
            format!("{{{{ 1{} }}}}", " if 1 else 1".repeat(n)),
            format!("{{{{ 1{} }}}}", " ** 1".repeat(n)),
            format!("{{{{ 1{} }}}}", " is odd".repeat(n)),
            format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(n)),
        ]
    };
    for trouble in deep(5_000) {
        refused(&trouble, "too deep");
    }
    for trouble in deep(50_000) {
        refused(&trouble, "");
    }
    // The parser's own bound.
    for n in [200, 5_000] {
        refused(&format!("{{{{ {}1{} }}}}", "(".repeat(n), ")".repeat(n)), "");
        refused(&format!("{{{{ {}1{} }}}}", "[".repeat(n), "]".repeat(n)), "");
        refused(&("{% if 1 %}".repeat(n) + &"{% endif %}".repeat(n)), "");
    }
}

#[test]
fn a_template_just_within_its_depth_is_rendered() {
    for fine in [
        format!("{{{{ ({} true) and '' }}}}", "not ".repeat(900)),
        format!("{{{{ ''{} }}}}", "|upper".repeat(450)),
        format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(490)),
    ] {
        with_template(&fine).load();
    }
}

#[test]
fn a_template_without_end_is_refused() {
    let loops = "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}\
                 {% set d = a %}{% endfor %}{% endfor %}{% endfor %}";
    refused(loops, "");
    let short =
        "{% for a in 'abcdefghij' %}".repeat(9) + "{% set d = 1 %}" + &"{% endfor %}".repeat(9);
    refused(&short, "steps");
    refused("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "");
    refused("{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}", "");
}

#[test]
fn a_template_that_makes_ever_more_is_refused() {
    let forty = |step: &str| format!("{{% set s = 'ab' %}}{}", step.repeat(40));
    let looped = |step: &str| {
        format!("{{% set n = namespace(s='ab') %}}{{% for i in range(60) %}}{step}{{% endfor %}}")
    };
    for trouble in [
        forty("{% set s = s ~ s %}"),
        forty("{% set s = s + s %}"),
        forty("{% set s = s * 2 %}"),
        forty("{% set s %}{{ s }}{{ s }}{% endset %}"),
        forty("{% set s = s|replace('b', s) %}"),
        forty("{% set s = s.replace('b', s) %}"),
        forty("{% set s = [s, s]|join(s) %}"),
        forty("{% set s = s.join([s, s]) %}"),
        forty("{% set s = [s, s] %}{{ s }}"),
        forty("{% set s = (s, s) %}{{ s|string }}"),
        forty("{% set s = {'a': s, 'b': s} %}{{ s|tojson }}"),
        format!(
            "{{% set s = [1] %}}{}{{{{ s|length }}}}{{{{ s|list }}}}",
            "{% set s = s + s %}".repeat(40)
        ),
        format!("{{% set s = [1] %}}{}", "{% set s = [*s, *s] %}".repeat(40)),
        looped("{% set n.s = n.s ~ n.s %}"),
        looped("{% set n.s = n.s + n.s %}"),
        looped("{% set n.s = [n.s, n.s] %}{% if n.s == n.s %}{% endif %}"),
        "{{ 'a' * 99999999 }}".into(),
        "{% set l = [0] * 99999999 %}{{ l|list|length }}".into(),
        "{{ 'a\\nb'|indent(999999999) }}".into(),
        "{{ [1]|batch(999999999, 0) }}".into(),
        "{{ '%999999999d'|format(1) }}".into(),
        "{{ messages|tojson(indent=999999999) }}".into(),
        "{% set n = namespace() %}{% set n.n = n %}{{ n }}".into(),
        "{% set n = namespace() %}{% set n.n = n %}{% set m = namespace() %}{% set m.n = m %}\
         {{ n == m }}{{ n|tojson }}"
            .into(),
        format!("{{% for i in range(99) %}}{}{{% endfor %}}", "x".repeat(60_000)),
    ] {
        refused(&trouble, "");
    }
}

/// Values that hold themselves have no end in any direction.
#[test]
fn a_value_that_holds_itself_is_no_trap() {
    let circle = "{% set n = namespace() %}{% set n.n = n %}{% set m = namespace() %}\
                  {% set m.n = m %}{% set l = [n, m] %}";
    for walk in [
        "{{ n }}",
        "{{ l }}",
        "{{ n == m }}",
        "{{ n == m == n }}",
        "{{ n < m <= n }}",
        "{{ n in l }}",
        "{{ 1 in n in l }}",
        "{{ m not in l }}",
        "{{ l|sort }}",
        "{{ l|unique|list }}",
        "{{ l|min }}{{ l|sum }}",
        "{{ {n: 1} }}",
        "{{ {n: 1}[m] }}",
        "{{ dict(a=n) }}",
        "{{ '%s'|format(n) }}",
        "{{ n is eq m }}",
        "{{ n is in l }}",
        "{% for x in l %}{{ loop.changed(x) }}{% endfor %}",
        "{{ n|tojson }}{{ n|pprint }}{{ n|string }}",
        "{{ n ~ m }}{{ n + m }}{{ n * 2 }}",
        "{{ l|join(n) }}{{ l|groupby('n') }}{{ l|map('string')|list }}",
        "{{ debug() }}",
        "{{ debug(n) }}",
        "{{ l.index(m) }}{{ l.count(m) }}",
        "{% macro f(x) %}{{ x }}{% endmacro %}{{ f(n) }}",
        "{% with a = n %}{{ a == m }}{% endwith %}",
        "{{ raise_exception(n) }}",
        "{{ range(n) }}",
        "{{ n[m] }}{{ l[n:m] }}",
    ] {
        // Refused or rendered: the process lives, and soon.
        let started = Instant::now();
        let copy = with_template(&format!("{circle}{walk}"));
        if let Err(error) = gststreamkvqa::VideoLlm::load(copy.dir(), &Default::default()) {
            let message = error.to_string();
            assert!(message.contains("chat_template.jinja"), "{walk}: {message}");
            assert!(message.len() < 100_000, "{walk}: {}", message.len());
        }
        assert!(started.elapsed() < Duration::from_secs(10), "{walk}");
    }
}

/// What published templates do stays allowed.
#[test]
fn a_template_of_the_usual_kind_is_rendered() {
    let usual = "{%- set ns = namespace(n=0, text='') -%}\
                 {%- for m in messages -%}{%- set ns.n = ns.n + 1 -%}\
                 {%- set ns.text = ns.text ~ m['role'] + ', ' -%}{%- endfor -%}\
                 {%- macro shout(x) -%}{{ x|upper|trim }}{%- endmacro -%}\
                 {{- shout(ns.text) }}{{ messages|map(attribute='role')|join(' | ') }}\
                 {{ ['a', 'b']|tojson }}{{ 'a-b'.split('-')[1] }}{{ 'x'.replace('x', 'y') }}\
                 {{ messages[::-1]|length }}{% if 'a' in ['a'] and not (1 > 2) %}ok{% endif %}\
                 {{ '=' * 3 }}{{ 'abc'.startswith('a') }}{{ {'k': 1}.items()|list|length }}\n";
    let model = with_template(usual).load();
    let ids = model.prompts().opening(PromptStyle::Hf, None, "").unwrap();
    let text = model.prompts().decode(&ids).unwrap();
    assert_eq!(text, "USER,user[\"a\", \"b\"]by1ok===True1\n", "{text:?}");
}

/// Damage that makes the tokenizers crate panic, and its neighbours.
#[test]
fn a_damaged_tokenizer_is_one_error_that_names_the_file() {
    type Damage = (&'static str, fn(&mut Value));
    let damages: [Damage; 12] = [
        ("no merge rank", |t| t["model"]["merges"] = json!([["zz", "qq"]])),
        ("merges of three", |t| t["model"]["merges"] = json!([["a", "b", "c"]])),
        ("an id twice", |t| t["model"]["vocab"]["b"] = json!(64)),
        ("ids with holes", |t| t["model"]["vocab"]["a"] = json!(4_000_000_000u32)),
        ("an empty vocabulary", |t| {
            t["model"]["vocab"] = json!({});
            t["model"]["merges"] = json!([]);
        }),
        ("an unknown normaliser", |t| t["normalizer"] = json!({"type": "Upside"})),
        ("a broken pattern", |t| {
            t["pre_tokenizer"]["pretokenizers"][0]["pattern"] = json!({"Regex": "(((("});
        }),
        ("an empty pattern", |t| {
            t["pre_tokenizer"]["pretokenizers"][0]["pattern"] = json!({"String": ""});
        }),
        ("an added id out of bounds", |t| t["added_tokens"][0]["id"] = json!(u32::MAX)),
        ("a charsmap that is none", |t| {
            t["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"});
        }),
        ("an unigram without words", |t| {
            t["model"] = json!({"type": "Unigram", "unk_id": 3, "vocab": []});
        }),
        ("a template that asks for a token it lacks", |t| {
            t["post_processor"] = json!({
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}],
                "pair": [],
                "special_tokens": {}
            });
        }),
    ];
    for (what, damage) in damages {
        let copy = Copy::of("ov-odd");
        copy.edit("tokenizer.json", damage);
        let loaded = gststreamkvqa::VideoLlm::load(copy.dir(), &Default::default());
        // Some damage leaves a tokenizer that works; none may end the process.
        let result = loaded.and_then(|model| model.prompts().tail(PromptStyle::Hf, None, "what?"));
        if let Err(error) = result {
            let message = error.to_string();
            assert!(message.contains("tokenizer.json"), "{what}: {message}");
            assert!(!message.contains("report"), "{what}: {message}");
        }
    }
}

/// Three places in which the crate unwraps what the file says while it reads it.
#[test]
fn damage_on_which_the_tokenizers_crate_panics_is_refused_by_the_file_s_name() {
    let charsmap = |map: &str| json!({"type": "Precompiled", "precompiled_charsmap": map});
    let damages = [
        ("normalizer", charsmap("AAAA")),
        ("normalizer", charsmap("not base64")),
        ("normalizer", json!({"type": "Precompiled"})),
        ("normalizer", json!({"type": "Sequence", "normalizers": [charsmap("")]})),
        ("decoder", json!(7)),
        ("decoder", json!("ByteLevel")),
        ("decoder", json!([{"type": "ByteLevel"}])),
        ("decoder", json!({"type": "Sequence", "decoders": [7]})),
    ];
    for fixture in ["ov-odd", "pair-siglip"] {
        for (part, damage) in &damages {
            let copy = Copy::of(fixture);
            copy.edit("tokenizer.json", |file| file[*part] = damage.clone());
            let message = if fixture == "ov-odd" {
                copy.error().to_string()
            } else {
                let device = candle_core::Device::Cpu;
                let pair = TextImage::load(copy.dir(), &device, &Default::default());
                pair.err().expect("must be refused").to_string()
            };
            assert!(message.contains("tokenizer.json"), "{part} {damage}: {message}");
            assert!(message.contains("tokenizer that can be read"), "{part} {damage}: {message}");
        }
    }
}

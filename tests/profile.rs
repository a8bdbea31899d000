// SPDX-License-Identifier: MPL-2.0
//! Dependencies are built without overflow checks and debug assertions: with them the matrix kernels
//! take more than twice as long. Whoever finds another way to switch them on finds this test red.

use std::panic::catch_unwind;

use candle_core::{Layout, Shape};

/// Arithmetic of candle-core that overflows, in code that is compiled there and not here.
#[test]
fn dependencies_do_not_check_for_overflow() {
    let strides = catch_unwind(|| {
        // A stride is the product of the dimensions behind it.
        Layout::contiguous(Shape::from((2, usize::MAX, 4))).stride().to_vec()
    });
    let strides =
        strides.expect("candle is built with overflow checks: see [profile] in Cargo.toml");
    assert_eq!(strides, [usize::MAX.wrapping_mul(4), 4, 1]);
}

#[test]
fn profiles_of_dependencies_say_so() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let manifest: toml::Table = std::fs::read_to_string(path).unwrap().parse().unwrap();
    let dev = &manifest["profile"]["dev"]["package"]["*"];
    for check in ["overflow-checks", "debug-assertions"] {
        assert_eq!(dev[check].as_bool(), Some(false), "profile.dev.package.\"*\".{check}");
        // What is installed is a release build, which has neither unless somebody asks for it.
        let release = &manifest["profile"]["release"];
        assert!(release.get(check).is_none_or(|on| on.as_bool() == Some(false)), "{check}");
        let of_package = release.get("package").and_then(|p| p.get("*")).and_then(|p| p.get(check));
        assert!(of_package.is_none_or(|on| on.as_bool() == Some(false)), "{check}");
    }
}

/// Else `make test` would compile everything again that `make demo` has compiled.
#[test]
fn the_plugin_alone_is_built_from_the_crates_of_the_workspace() {
    let crates = |options: &[&str]| {
        let cargo = std::env::var("CARGO").unwrap_or("cargo".into());
        let output = std::process::Command::new(cargo)
            .args(["tree", "--locked", "--prefix", "none", "--format", "{p} {f}"])
            .args(options)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().map(|line| line.trim_end_matches(" (*)").trim().to_owned());
        lines.collect::<std::collections::BTreeSet<String>>()
    };
    let plugin = crates(&["--edges", "normal,build"]);
    // The wall is compiled apart.
    let all = ["--workspace", "--exclude", "streamkvqa-wall", "--edges", "normal,build,dev"];
    let workspace = crates(&all);
    assert!(plugin.len() > 150, "{}", plugin.len());
    let others: Vec<_> = plugin.difference(&workspace).collect();
    assert!(
        others.is_empty(),
        "other features than in the workspace; name them in Cargo.toml: {others:?}"
    );
}

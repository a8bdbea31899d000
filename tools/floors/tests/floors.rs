// SPDX-License-Identifier: MPL-2.0
//! The check against small made-up crates, and the repository against the check.

use std::path::Path;

use floors::{Plan, Source, Tree, check_repository, imports};

/// The faults of a crate made of these files.
fn faults(plan: &str, texts: &[(&str, &str)]) -> Vec<String> {
    let tree = Tree::read(&Source::Texts(texts), "src/lib.rs").unwrap();
    plan.parse::<Plan>().unwrap().check(&tree.files(), &imports(&tree))
}

const FLAT: &str = "src = a, b, c < lib";

/// The faults of three files side by side.
fn flat(a: &str, b: &str, c: &str) -> Vec<String> {
    faults(
        FLAT,
        &[
            ("src/lib.rs", "pub mod a; pub mod b; pub mod c; pub use b::{B, Other as Another};"),
            ("src/a.rs", a),
            ("src/b.rs", b),
            ("src/c.rs", c),
        ],
    )
}

#[test]
fn a_chain_of_imports_is_no_circle() {
    let found = flat("use crate::b::B;", "use crate::c::C; pub struct B(C);", "pub struct C;");
    assert_eq!(found, [""; 0]);
}

#[test]
fn a_circle_is_named_file_by_file() {
    let found = flat(
        "use crate::b::B; pub struct A;",
        "\nuse crate::c::C; pub struct B;",
        "use crate::a::A; pub struct C;",
    );
    assert_eq!(
        found,
        ["an import circle of 3 files:\n  \
          src/a.rs:1 takes `crate::b::B` of src/b.rs\n  \
          src/b.rs:2 takes `crate::c::C` of src/c.rs\n  \
          src/c.rs:1 takes `crate::a::A` of src/a.rs"]
    );
}

/// Every way to write an import of `b` into `a`, which `b` imports.
#[test]
fn every_spelling_of_an_import_counts() {
    let b = "use crate::a::A; pub struct B; pub struct Other; pub fn make() {} pub mod inner \
             { pub struct Deep; }";
    for a in [
        "use crate::b::B;",
        "use super::b::B;",
        "use crate::{c::C, b::{Other, B as Renamed}};",
        "use crate::b; fn f() { b::make() }",
        "use crate::b::{self}; fn f() { b::make() }",
        "use crate::b as other; fn f(_: other::B) {}",
        "fn f() -> crate::b::B { todo!() }",
        "fn f() { let _ = vec![crate::b::make()]; }",
        "fn f() { println!(\"{:?}\", super::b::make()) }",
        "fn f() { use crate::b::make; make() }",
        "impl Trait for super::b::B {}",
        "use crate::b::inner::Deep;",
        "use crate::b::*; fn f(_: B) {}",
        "use crate::B;",
        "use crate::Another;",
        "mod nested { use super::super::b::B; }",
        "use crate::c::Through;",
        "struct S<T: Fn(crate::b::B)>(T);",
    ] {
        let found =
            flat(&format!("{a} pub struct A;"), b, "pub use crate::b::B as Through; pub struct C;");
        assert_eq!(found.len(), 1, "{a}: {found:?}");
        assert!(
            found[0].contains("src/a.rs:1 takes") && found[0].contains("src/b.rs"),
            "{found:?}"
        );
    }
}

#[test]
fn what_is_no_import_does_not_count() {
    let b = "use crate::a::A; pub struct B; pub struct Other; pub fn make() {}";
    for a in [
        "use std::b::B;",
        "use ::b::B;",
        "use crate::b;",
        "/// [`crate::b::B`]\n",
        "#[cfg(test)] mod tests { use crate::b::B; }",
        "#[cfg(all(test, feature = \"x\"))] use crate::b::B;",
        "pub use crate::b::B;",
        "fn f(b: usize) { b.make(); b::<u8>() }",
    ] {
        let found = flat(&format!("{a} pub struct A;"), b, "");
        assert_eq!(found, [""; 0], "{a}");
    }
    let found = flat("#[cfg(not(test))] use crate::b::B; pub struct A;", b, "");
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn a_parent_that_declares_is_in_no_circle_and_one_that_defines_is() {
    let plan = "src = m < lib\nsrc/m = a, mod";
    let tree = |parent: &str, child: &str| {
        faults(plan, &[("src/lib.rs", "mod m;"), ("src/m/mod.rs", parent), ("src/m/a.rs", child)])
    };
    let declares = "mod a; mod b { pub struct Noun; } pub use a::A;";
    assert_eq!(tree(declares, "pub struct A;"), [""; 0]);
    assert_eq!(tree("mod a; pub struct Noun;", "use super::Noun; pub struct A;"), [""; 0]);
    for uses in ["use a::A;", "pub use a::A; fn f(_: A) {}", "fn f() { a::make() }"] {
        let found =
            tree(&format!("mod a; {uses} pub struct Noun;"), "use super::Noun; pub struct A;");
        assert_eq!(found.len(), 1, "{uses}: {found:?}");
        assert!(found[0].contains("src/m/a.rs:1 takes `super::Noun` of src/m/mod.rs"), "{found:?}");
    }
}

#[test]
fn an_arrow_from_a_lower_floor_to_a_higher_is_named() {
    let plan = "# comment\nsrc = a\n    < b, c < lib";
    let tree = |a: &str, b: &str, c: &str| {
        let lib = "pub mod a; pub mod b; pub mod c;";
        faults(plan, &[("src/lib.rs", lib), ("src/a.rs", a), ("src/b.rs", b), ("src/c.rs", c)])
    };
    assert_eq!(tree("pub struct A;", "use crate::{a::A, c::C};", "pub struct C;"), [""; 0]);
    let found = tree("use crate::c::C;", "", "pub struct C;");
    assert_eq!(found, ["src: `a` is below `c`: src/a.rs:1 takes `crate::c::C` of src/c.rs"]);
}

#[test]
fn rooms_and_files_have_to_match() {
    let found = faults(
        "src = a < z < lib",
        &[("src/lib.rs", "mod a; mod b;"), ("src/a.rs", ""), ("src/b.rs", "")],
    );
    assert_eq!(found, ["src: `b` has no floor", "src: there is no room `z`"]);
    for plan in ["src", "src = a < < b", "src = a, a"] {
        assert!(plan.parse::<Plan>().is_err(), "{plan}");
    }
}

/// Below a folder that the plan does not name, circles are nobody's business yet.
#[test]
fn a_folder_without_floors_is_not_looked_into() {
    let texts = [
        ("src/lib.rs", "mod m; mod n;"),
        ("src/m.rs", "mod a; mod b;"),
        ("src/m/a.rs", "use super::b::B; pub struct A;"),
        ("src/m/b.rs", "use super::a::A; pub struct B;"),
        ("src/n.rs", "mod c; pub struct N;"),
        ("src/n/c.rs", "use super::N;"),
    ];
    assert_eq!(faults("src = m, n < lib\nsrc/n = c", &texts), [""; 0]);
    assert_eq!(faults("src = m, n < lib\nsrc/m = a, b", &texts).len(), 1);
}

#[test]
fn the_house_is_built_as_planned() {
    let faults = check_repository(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).unwrap();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

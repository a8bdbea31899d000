// SPDX-License-Identifier: MPL-2.0
//! The things there are, read from `nouns.tsv`, which the atlas script reads as well.

use std::sync::OnceLock;

use crate::words::{Category, Scenery, Style};

/// A thing by its place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Noun(u8);

/// Where a thing is at home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    Ground,
    Air,
    Water,
}

/// Which way a drawing looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Facing {
    Left,
    Right,
    /// It may be mirrored at will.
    Either,
    /// It must not be mirrored: it can be read.
    Fixed,
}

/// A row of the table.
#[derive(Debug)]
struct Row {
    name: &'static str,
    plural: &'static str,
    category: Category,
    element: Element,
    sceneries: Vec<Scenery>,
    moves: bool,
    facing: Facing,
    stamp: bool,
}

/// Things in sceneries that no training shows: both are known, the pair is new.
pub const HELD_OUT: [(&str, Scenery); 8] = [
    ("dog", Scenery::Shore),
    ("bus", Scenery::Field),
    ("penguin", Scenery::Street),
    ("apple", Scenery::Field),
    ("butterfly", Scenery::Street),
    ("cactus", Scenery::Room),
    ("airplane", Scenery::Shore),
    ("umbrella", Scenery::Room),
];

fn table() -> &'static [Row] {
    static TABLE: OnceLock<Vec<Row>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let lines = include_str!("../nouns.tsv").lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| row(line).unwrap_or_else(|| panic!("nouns.tsv: {line}"))).collect()
    })
}

fn row(line: &'static str) -> Option<Row> {
    let mut cells = line.split('\t');
    let (name, plural, category) = (cells.next()?, cells.next()?, cells.next()?);
    let (_code, home) = (cells.next()?, cells.next()?);
    let (moves, facing, stamp) = (cells.next()?, cells.next()?, cells.next()?);
    let sceneries = home.chars().skip(1).map(|letter| match letter {
        's' => Some(Scenery::Street),
        'f' => Some(Scenery::Field),
        'b' => Some(Scenery::Shore),
        'r' => Some(Scenery::Room),
        'k' => Some(Scenery::Sky),
        _ => None,
    });
    Some(Row {
        name,
        plural,
        category: *Category::ALL.iter().find(|other| other.word() == category)?,
        element: match home.chars().next()? {
            'G' => Element::Ground,
            'A' => Element::Air,
            'W' => Element::Water,
            _ => return None,
        },
        sceneries: sceneries.collect::<Option<_>>()?,
        moves: moves == "y",
        facing: match facing {
            "l" => Facing::Left,
            "r" => Facing::Right,
            "-" => Facing::Either,
            "=" => Facing::Fixed,
            _ => return None,
        },
        stamp: !stamp.is_empty(),
    })
}

impl Noun {
    pub fn all() -> impl Iterator<Item = Self> {
        (0..table().len()).map(|index| Self(index as u8))
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|noun| noun.name() == name)
    }

    /// Its number; 0 means that nothing is there.
    pub fn id(self) -> u8 {
        self.0 + 1
    }

    fn row(self) -> &'static Row {
        &table()[usize::from(self.0)]
    }

    pub fn name(self) -> &'static str {
        self.row().name
    }

    pub fn plural(self) -> &'static str {
        self.row().plural
    }

    /// "a dog", "an apple"
    pub fn with_article(self) -> String {
        // "a one", "a ufo": they begin with the sound of another letter.
        let vowel = self.name().starts_with(['a', 'e', 'i', 'o', 'u']);
        let article = if vowel && !["one", "ufo"].contains(&self.name()) { "an" } else { "a" };
        format!("{article} {}", self.name())
    }

    pub fn category(self) -> Category {
        self.row().category
    }

    pub fn element(self) -> Element {
        self.row().element
    }

    pub fn moves(self) -> bool {
        self.row().moves
    }

    pub fn facing(self) -> Facing {
        self.row().facing
    }

    /// Every scenery it can be seen in.
    pub fn sceneries(self) -> &'static [Scenery] {
        &self.row().sceneries
    }

    pub fn is_held_out(self, scenery: Scenery) -> bool {
        HELD_OUT.contains(&(self.name(), scenery))
    }

    /// The sceneries training shows it in.
    pub fn trained_sceneries(self) -> impl Iterator<Item = Scenery> {
        self.sceneries().iter().copied().filter(move |&scenery| !self.is_held_out(scenery))
    }

    /// Whether there is a drawing of it in `style`.
    pub fn drawn_in(self, style: Style) -> bool {
        style != Style::Tuxpaint || self.row().stamp
    }
}

// SPDX-License-Identifier: MPL-2.0
//! The short word lists: sceneries, lights, kinds of things, places, distances, ways.

use serde::{Deserialize, Serialize};

/// Declares a word list: an enum, all its values in order, and the word of each.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum $name { $($variant),+ }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$variant),+];
            pub const WORDS: &[&str] = &[$($word),+];

            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
    };
}

words! {
    /// What a camera looks at.
    Scenery { Street = "street", Field = "field", Shore = "shore", Room = "room", Sky = "sky" }
}

words! {
    /// The time of day.
    Light { Day = "day", Dusk = "dusk", Night = "night" }
}

words! {
    /// What sort of thing something is.
    Category {
        Animal = "animal", Vehicle = "vehicle", Person = "person", Food = "food",
        Tool = "tool", Hobby = "hobby", Nature = "nature", Sign = "sign",
    }
}

words! {
    /// Where the centre of a thing is.
    Place { Left = "left", Middle = "middle", Right = "right" }
}

words! {
    /// How far away a thing is, which is how large it looks.
    Distance { Near = "near", Far = "far" }
}

words! {
    /// Which way a thing went.
    Way { Left = "left", Right = "right", Closer = "closer", Away = "away" }
}

words! {
    /// How long ago something was.
    Ago {
        JustNow = "just now", Moments = "moments ago",
        HalfMinute = "half a minute ago", Minute = "a minute ago",
    }
}

words! {
    /// Whose drawing a thing is.
    Style { Noto = "noto", Fluent = "fluent", Openmoji = "openmoji", Tuxpaint = "tuxpaint" }
}

impl Style {
    /// The styles training sees; both may be redistributed.
    pub const TRAINED: [Self; 2] = [Self::Noto, Self::Fluent];
}

impl Place {
    /// Names the place of a centre, `x` of the frame's width; `None` where two names would do.
    pub fn of(x: f32) -> Option<Self> {
        match x {
            x if x < 0.36 => Some(Self::Left),
            x if (0.42..=0.58).contains(&x) => Some(Self::Middle),
            x if x > 0.64 => Some(Self::Right),
            _ => None,
        }
    }
}

impl Distance {
    /// Near things are at least this large, far ones at most `FAR`; relative to the frame's mean side.
    pub const NEAR: f32 = 0.31;
    pub const FAR: f32 = 0.265;

    pub fn of(size: f32) -> Option<Self> {
        match size {
            size if size >= Self::NEAR => Some(Self::Near),
            size if size <= Self::FAR => Some(Self::Far),
            _ => None,
        }
    }
}

impl Ago {
    /// Names a time ago; `None` where two names would do.
    pub fn of(seconds: usize) -> Option<Self> {
        match seconds {
            1..=3 => Some(Self::JustNow),
            8..=15 => Some(Self::Moments),
            25..=38 => Some(Self::HalfMinute),
            50..=80 => Some(Self::Minute),
            _ => None,
        }
    }
}

// SPDX-License-Identifier: MPL-2.0
//! The things the world is made of and the words for them.

use serde::{Deserialize, Serialize};

/// Declares a word list: an enum, all its values in order, and the word of each.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name { $($variant),+ }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
    };
}

words! {
    /// The colour of an object.
    Color {
        Red = "red", Green = "green", Blue = "blue", Yellow = "yellow",
        White = "white", Orange = "orange", Purple = "purple", Cyan = "cyan",
    }
}

words! {
    /// The outline of an object.
    Shape {
        Circle = "circle", Square = "square", Triangle = "triangle",
        Cross = "cross", Ring = "ring", Diamond = "diamond",
    }
}

words! {
    /// What lies behind the object.
    Background { Black = "black", Gray = "gray", Brown = "brown", Pink = "pink" }
}

words! {
    /// Where the centre of the object is.
    Place {
        TopLeft = "top left", TopRight = "top right",
        BottomLeft = "bottom left", BottomRight = "bottom right",
        Center = "center",
    }
}

impl Shape {
    pub fn plural(self) -> String {
        match self {
            Self::Cross => "crosses".into(),
            shape => format!("{}s", shape.word()),
        }
    }
}

impl Place {
    /// Names the place of a centre in unit coordinates; `None` where two names would do.
    pub fn of(x: f32, y: f32) -> Option<Self> {
        const CENTER: f32 = 0.08;
        const CLEAR: f32 = 0.11;
        let (dx, dy) = (x - 0.5, y - 0.5);
        if dx.abs() <= CENTER && dy.abs() <= CENTER {
            return Some(Self::Center);
        }
        if dx.abs() < CLEAR || dy.abs() < CLEAR {
            return None;
        }
        Some(match (dx < 0.0, dy < 0.0) {
            (true, true) => Self::TopLeft,
            (false, true) => Self::TopRight,
            (true, false) => Self::BottomLeft,
            (false, false) => Self::BottomRight,
        })
    }
}

/// What an object is called: its colour and its shape. Questions refer to objects by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    pub color: Color,
    pub shape: Shape,
}

/// Combinations that occur in no training frame, stream or question:
/// each word is known, the pair is new.
pub const HELD_OUT: [Key; 5] = [
    Key { color: Color::Red, shape: Shape::Diamond },
    Key { color: Color::Green, shape: Shape::Ring },
    Key { color: Color::Purple, shape: Shape::Square },
    Key { color: Color::Yellow, shape: Shape::Cross },
    Key { color: Color::Cyan, shape: Shape::Triangle },
];

impl Key {
    pub fn all() -> impl Iterator<Item = Self> {
        Color::ALL
            .iter()
            .flat_map(|&color| Shape::ALL.iter().map(move |&shape| Self { color, shape }))
    }

    pub fn is_held_out(self) -> bool {
        HELD_OUT.contains(&self)
    }

    /// The combinations training may use.
    pub fn trained() -> Vec<Self> {
        Self::all().filter(|key| !key.is_held_out()).collect()
    }

    /// "red circle"
    pub fn name(self) -> String {
        format!("{} {}", self.color.word(), self.shape.word())
    }

    /// "a red circle", "an orange ring"
    pub fn with_article(self) -> String {
        let article = if self.color == Color::Orange { "an" } else { "a" };
        format!("{article} {}", self.name())
    }
}

// SPDX-License-Identifier: MPL-2.0
//! What can be asked, and in which words.

use serde::{Deserialize, Serialize};

use crate::noun::Noun;
use crate::words::{Ago, Category, Distance, Light, Place, Scenery, Way};

/// Counting what is there is trained and asked up to here.
pub const MAX_NOW: usize = 3;
/// Counting what came by is trained and asked up to here.
pub const MAX_CAME_BY: usize = 4;

/// Declares the kinds of question: name, trained wordings, and at last the one held out.
///
/// `{n}` is a thing, `{a}` the same with its article, `{p}` its plural, `{k}` a kind of thing.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident $name:literal $first:literal $second:literal $held_out:literal;)+) => {
        /// What a question is about.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Kind { $($(#[$doc])* $kind),+ }

        impl Kind {
            pub const ALL: &[Self] = &[$(Self::$kind),+];

            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => $name),+ }
            }

            /// Wordings; the last one is held out of training.
            pub fn wordings(self) -> [&'static str; 3] {
                match self { $(Self::$kind => [$first, $second, $held_out]),+ }
            }
        }
    };
}

kinds! {
    Now "now"
        "what is here now?" "what do you see now?" "what do you see here now?";
    ExistsNow "exists_now"
        "is there {a} now?" "do you see {a} now?" "is {a} here now?";
    CountNow "count_now"
        "how many {p} are there now?" "how many {p} do you see now?" "how many {p} are here now?";
    /// Left, in the middle, right.
    WhereNow "where_now"
        "where is the {n} now?" "on which side is the {n}?" "on which side is the {n} now?";
    /// Near or far.
    DistanceNow "distance_now"
        "is the {n} near or far?" "how far is the {n} now?" "is the {n} far or near now?";
    /// Its category.
    KindNow "kind_now"
        "what kind of thing is here now?" "what kind of thing do you see now?"
        "which kind of thing is here now?";
    DidAppear "did_appear"
        "did {a} appear?" "was there {a}?" "did you see {a}?";
    WhereWas "where_was"
        "where was the {n}?" "on which side was the {n}?" "where did you see the {n}?";
    DistanceWas "distance_was"
        "was the {n} near or far?" "how far was the {n}?" "was the {n} far or near?";
    /// The one thing of a category.
    KindWas "kind_was"
        "which {k} came by?" "which {k} did you see?" "what {k} was there?";
    Beside "beside"
        "what was beside the {n}?" "what was there with the {n}?"
        "what did you see beside the {n}?";
    WhichWay "which_way"
        "which way did the {n} go?" "where did the {n} go?" "which way did you see the {n} go?";
    LightWhen "light_when"
        "was it day, dusk or night when the {n} came?"
        "what time of day was it when the {n} came?"
        "was it day, dusk or night when the {n} was there?";
    First "first"
        "what came first?" "what did you see first?" "what was there first?";
    Last "last"
        "what came last?" "what did you see last?" "what was there last?";
    After "after"
        "what came right after the {n}?" "what did you see after the {n}?"
        "what was there after the {n}?";
    Before "before"
        "what came right before the {n}?" "what did you see before the {n}?"
        "what was there before the {n}?";
    CameBy "came_by"
        "how many {p} came by?" "how many {p} were there?" "how many {p} did you see?";
    When "when"
        "when was the {n} here?" "when did you see the {n}?" "when was the {n} there?";
    LightNow "light_now"
        "is it day, dusk or night now?" "what time of day is it now?"
        "what time of day is it here?";
    SceneNow "scene_now"
        "what place is this?" "what place do you see now?" "which place is this now?";
}

const YES_NO: &[&str] = &["yes", "no"];
const NUMBERS: &[&str] = &["0", "1", "2", "3", "4"];

impl Kind {
    /// Whether the newest frame answers it.
    pub fn is_now(self) -> bool {
        matches!(
            self,
            Self::Now
                | Self::ExistsNow
                | Self::CountNow
                | Self::WhereNow
                | Self::DistanceNow
                | Self::KindNow
                | Self::LightNow
                | Self::SceneNow
        )
    }

    /// All answers, of kinds with few; the others are answered with a thing.
    pub fn answers(self) -> Option<&'static [&'static str]> {
        Some(match self {
            Self::ExistsNow | Self::DidAppear => YES_NO,
            Self::CountNow => &NUMBERS[..=MAX_NOW],
            Self::CameBy => &NUMBERS[..=MAX_CAME_BY],
            Self::WhereNow | Self::WhereWas => Place::WORDS,
            Self::DistanceNow | Self::DistanceWas => Distance::WORDS,
            Self::KindNow => Category::WORDS,
            Self::WhichWay => Way::WORDS,
            Self::LightWhen | Self::LightNow => Light::WORDS,
            Self::When => Ago::WORDS,
            Self::SceneNow => Scenery::WORDS,
            _ => return None,
        })
    }
}

/// What a question mentions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    None,
    Noun(Noun),
    Category(Category),
}

impl Subject {
    /// `wording` with the subject in it.
    pub fn put_into(self, wording: &str) -> String {
        match self {
            Self::None => wording.into(),
            Self::Noun(noun) => wording
                .replace("{n}", noun.name())
                .replace("{p}", noun.plural())
                .replace("{a}", &noun.with_article()),
            Self::Category(category) => wording.replace("{k}", category.phrase()),
        }
    }
}

impl Category {
    /// What one of them is called.
    pub fn phrase(self) -> &'static str {
        match self {
            Self::Hobby => "hobby thing",
            Self::Nature => "nature thing",
            category => category.word(),
        }
    }
}

/// Every text that training can ask or answer.
pub fn vocabulary() -> Vec<String> {
    let mut texts: Vec<String> = vec!["nothing".into()];
    for &kind in Kind::ALL {
        for wording in &kind.wordings()[..2] {
            if wording.contains("{k}") {
                texts.extend(
                    Category::ALL.iter().map(|&of| Subject::Category(of).put_into(wording)),
                );
            } else if wording.contains('{') {
                texts.extend(Noun::all().map(|noun| Subject::Noun(noun).put_into(wording)));
            } else {
                texts.push((*wording).into());
            }
        }
        texts.extend(kind.answers().into_iter().flatten().map(|&answer| answer.into()));
    }
    texts.extend(Noun::all().map(|noun| noun.name().into()));
    texts.sort();
    texts.dedup();
    texts
}

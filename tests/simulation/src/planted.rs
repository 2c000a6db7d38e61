//! Bugs of the kind that the oracle must see, planted one at a time.
//!
//! None of them is in the pipeline's crates: no feature, no switch and no line of them could turn a bug on in the shipped
//! program, not even where cargo builds program and tests with one set of features. Each is planted from the outside, by
//! a log or a store that breaks towards the process under test exactly the promise which the bug would not have used:
//!
//! | bug | how it comes about |
//! |---|---|
//! | commit before file | a data file counts as written when it is sent; it arrives seconds later, or never if its process dies |
//! | no fencing | commits of other processes are shown without their offsets, so every batch seems to begin where the table stands |
//! | dedup window lost | the log says that nothing lies before the offset at which a process begins to read |
//! | merge drops a file | the commit of a merge also takes out a file that was not merged |
//! | ack before durability | an append is acknowledged when it is sent; it takes effect later, or never if its process dies |

use std::str::FromStr;

/// One planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    CommitBeforeFile,
    NoFencing,
    DedupWindowLost,
    MergeDropsFile,
    AckBeforeDurability,
}

impl Planted {
    pub const ALL: [Self; 5] = [
        Self::CommitBeforeFile,
        Self::NoFencing,
        Self::DedupWindowLost,
        Self::MergeDropsFile,
        Self::AckBeforeDurability,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::CommitBeforeFile => "commit-before-file",
            Self::NoFencing => "no-fencing",
            Self::DedupWindowLost => "dedup-window-lost",
            Self::MergeDropsFile => "merge-drops-file",
            Self::AckBeforeDurability => "ack-before-durability",
        }
    }
}

impl FromStr for Planted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|bug| bug.name() == text).ok_or_else(|| format!("expected one of {}", names()))
    }
}

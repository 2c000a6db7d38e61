//! How far an export is, in a file beside its output, so that an interrupted one goes on.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::UsageError;

/// What `PATH.resume` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// What was asked: an export of something else does not go on from here.
    question: Value,
    /// Of the next part; None before the first.
    pub token: Option<String>,
    /// Parts, bytes and contexts that are complete.
    pub parts: u64,
    pub bytes: u64,
    pub rows: u64,
    pub is_complete: bool,
}

impl Place {
    pub fn start(question: &Value) -> Self {
        Self { question: question.clone(), token: None, parts: 0, bytes: 0, rows: 0, is_complete: false }
    }

    /// The place of an interrupted export to `output`, if there is one.
    ///
    /// # Errors
    /// If it was an export of something else, or cannot be read.
    pub fn load(output: &Path, question: &Value) -> anyhow::Result<Option<Self>> {
        let path = path_beside(output);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        let place: Self = serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))?;
        if place.question != *question {
            bail!(UsageError(format!(
                "{} belongs to an interrupted export of something else; give its command, or --overwrite",
                path.display()
            )));
        }
        Ok(Some(place))
    }

    /// After one more part. `bytes`: of the output as a whole.
    pub fn advance(&mut self, next: Option<String>, bytes: u64, rows: u64) {
        self.is_complete = next.is_none();
        self.token = next;
        self.parts += 1;
        self.bytes = bytes;
        self.rows += rows;
    }

    pub fn save(&self, output: &Path) -> anyhow::Result<()> {
        let path = path_beside(output);
        let new = path.with_extension("resume.new");
        let failed = || format!("writing {}", path.display());
        std::fs::write(&new, serde_json::to_vec(self)?).with_context(failed)?;
        std::fs::rename(&new, &path).with_context(failed)
    }

    pub fn remove(output: &Path) -> anyhow::Result<()> {
        let path = path_beside(output);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", path.display()))
            }
            _ => Ok(()),
        }
    }
}

fn path_beside(output: &Path) -> PathBuf {
    // Without a slash at the end, which would put it into the folder.
    let mut name = output.components().collect::<PathBuf>().into_os_string();
    name.push(".resume");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn places_are_found_again_by_the_same_question_alone() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("all.csv");
        let question = json!({"filter": "plan equals gold"});
        assert_eq!(Place::load(&output, &question).unwrap(), None);
        let mut place = Place::start(&question);
        place.advance(Some("token".into()), 100, 5);
        place.save(&output).unwrap();
        assert_eq!(Place::load(&output, &question).unwrap(), Some(place.clone()));
        assert!(Place::load(&output, &json!({})).unwrap_err().is::<UsageError>());
        place.advance(None, 150, 2);
        assert!(place.is_complete && place.rows == 7 && place.parts == 2);
        Place::remove(&output).unwrap();
        assert_eq!(Place::load(&output, &question).unwrap(), None);
        Place::remove(&output).unwrap();
    }
}

//! What people should see of a running node, whatever its role: the last notices, for `branchline status` and the log.
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

/// Notices that are kept.
const NOTICES_MAX: usize = 100;

/// The notices of one node; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Notices(Arc<Mutex<VecDeque<String>>>);

impl Notices {
    /// Keeps something that people should see; said again, it moves to the end and is not logged again.
    pub fn add(&self, text: String) {
        let mut notices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = notices.len();
        notices.retain(|said| *said != text);
        if notices.len() == before {
            tracing::warn!("{text}");
        }
        if notices.len() >= NOTICES_MAX {
            notices.pop_front();
        }
        notices.push_back(text);
    }

    /// All of them, newest last.
    pub fn list(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_kept_once_and_the_oldest_goes() {
        let notices = Notices::default();
        for number in 0..NOTICES_MAX + 5 {
            notices.add(format!("notice {number}"));
            notices.add("again and again".to_owned());
        }
        let list = notices.list();
        assert_eq!(list.len(), NOTICES_MAX);
        assert_eq!(list.iter().filter(|text| *text == "again and again").count(), 1);
        assert_eq!(list.last().unwrap(), "again and again");
    }
}

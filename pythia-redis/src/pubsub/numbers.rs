//! Which numbers of which publisher have arrived: what is missing between two of them is lost.

use std::collections::HashMap;

use bytestring::ByteString;

/// The header in which a publisher of ours numbers its messages: `publisher:number`.
pub(super) const NUMBER: &str = "pythia-number";

/// The last number of each publisher in each channel. The tail after the last one stays unknown.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    last: HashMap<(ByteString, ByteString), u64>,
}

impl Numbers {
    /// Notes a number, and answers how many are missing before it. A first number, or one that is not higher, tells
    /// nothing: the publisher is new to us, has started again, or its message came twice.
    pub(super) fn missing(&mut self, channel: &ByteString, number: &str) -> u64 {
        let Some((publisher, number)) = number.split_once(':') else {
            return 0;
        };
        let Ok(number) = number.parse::<u64>() else {
            return 0;
        };
        let key = (channel.clone(), publisher.into());
        if let Some(last) = self.last.get_mut(&key) {
            let before = std::mem::replace(last, number);
            return number.saturating_sub(before).saturating_sub(1);
        }
        if self.last.len() >= MAX_PUBLISHERS {
            // Publishers come and go, and nobody says which are gone: at worst a gap of theirs goes unnoticed once.
            self.last.clear();
        }
        // The channel's name is a slice of the buffer that it arrived in, with all that came along: what is kept is a copy.
        let channel = ByteString::from(&**channel);
        self.last.insert((channel, key.1), number);
        0
    }
}

const MAX_PUBLISHERS: usize = 10_000;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn what_is_missing_between_two_numbers_of_one_publisher_is_lost() {
        let mut numbers = Numbers::default();
        let (news, sport) = (ByteString::from("news"), ByteString::from("sport"));
        let mut missing = |channel, number| numbers.missing(channel, number);
        assert_eq!(missing(&news, "a:7"), 0, "we came later");
        assert_eq!(missing(&news, "a:8"), 0);
        assert_eq!(missing(&news, "a:12"), 3);
        assert_eq!(missing(&news, "b:5"), 0, "another publisher");
        assert_eq!(missing(&sport, "a:20"), 0, "another channel");
        assert_eq!(missing(&news, "a:1"), 0, "started again");
        assert_eq!(missing(&news, "a:3"), 1);
        assert_eq!(missing(&news, "nonsense"), 0);
        assert_eq!(missing(&news, "a:nonsense"), 0);
    }

    #[test]
    fn what_is_kept_keeps_no_buffer_of_an_answer_alive() {
        let answer = Bytes::from(b"news and a megabyte of other messages".to_vec());
        let news = ByteString::try_from(answer.slice(..4)).unwrap();
        let mut numbers = Numbers::default();
        assert_eq!(numbers.missing(&news, "a:7"), 0);
        assert_eq!(numbers.missing(&news, "a:9"), 1);
        drop(news);
        assert!(answer.is_unique());
    }
}

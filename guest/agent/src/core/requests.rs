//! Which requests of the current epoch were seen, and the responses that may still have to be repeated.

use std::collections::BTreeMap;
use std::rc::Rc;

use skerry_protocol::Violation;
use skerry_protocol::message::MAX_UNANSWERED;

/// More remembered responses than this, although PING asked for news of them, and the host is not keeping its word.
const MAX_REMEMBERED: usize = 65_536;
/// From here on the host is asked, by PING, what has arrived.
const CONFIRM_COUNT: usize = 256;
const CONFIRM_BYTES: usize = 1024 * 1024;

enum Entry {
    Running,
    /// `sent`: it went out on the connection that lives now.
    Done {
        response: Rc<[u8]>,
        sent: bool,
    },
}

/// What to do with a request that has come.
pub enum Admission {
    Run,
    /// Running already, or answered and known to have arrived.
    Ignore,
    Repeat(Rc<[u8]>),
}

#[derive(Default)]
pub struct Requests {
    /// Responses to all IDs up to here have arrived.
    acked: u64,
    entries: BTreeMap<u64, Entry>,
    /// Answered IDs above `acked` whose responses have arrived, as ranges `start..=end`.
    arrived: BTreeMap<u64, u64>,
    running: usize,
    remembered_bytes: usize,
    /// Remembered responses that went out on the connection that lives now.
    sent: usize,
    /// IDs covered by the PING under way: the responses that were sent before it.
    asked: Option<Vec<u64>>,
}

impl Requests {
    /// Decides about request `id`; `acked` lets responses be forgotten.
    pub fn admit(&mut self, id: u64, acked: u64) -> Result<Admission, Violation> {
        self.forget_up_to(acked)?;
        if id <= self.acked || self.has_arrived(id) {
            return Ok(Admission::Ignore);
        }
        match self.entries.get_mut(&id) {
            Some(Entry::Running) => return Ok(Admission::Ignore),
            Some(Entry::Done { response, sent }) => {
                self.sent += usize::from(!*sent);
                *sent = true;
                return Ok(Admission::Repeat(response.clone()));
            }
            None => {}
        }
        if self.running >= MAX_UNANSWERED {
            return Err(Violation("too many unanswered requests"));
        }
        if self.entries.len() >= MAX_REMEMBERED {
            return Err(Violation("too many responses that were never acknowledged"));
        }
        self.entries.insert(id, Entry::Running);
        self.running += 1;
        Ok(Admission::Run)
    }

    /// Remembers the response of a running request, which is `sent` if there is a connection. False when nobody asked.
    pub fn finish(&mut self, id: u64, response: Rc<[u8]>, sent: bool) -> bool {
        match self.entries.get_mut(&id) {
            Some(entry @ Entry::Running) => {
                self.running -= 1;
                self.remembered_bytes += response.len();
                self.sent += usize::from(sent);
                *entry = Entry::Done { response, sent };
                true
            }
            _ => false,
        }
    }

    /// Bytes of responses that may have to be repeated.
    pub fn remembered_bytes(&self) -> usize {
        self.remembered_bytes
    }

    /// True when so much is remembered that the host should be asked what has arrived.
    ///
    /// `acked` alone does not bound what is remembered: one slow request holds it back while thousands are answered. A
    /// PONG says the same for single responses, since the host reads in order.
    pub fn wants_confirmation(&self) -> bool {
        let much = self.sent >= CONFIRM_COUNT || (self.sent > 0 && self.remembered_bytes >= CONFIRM_BYTES);
        // A host that is busy may leave a PING unanswered.
        let asked = self.asked.as_ref().map_or(0, |asked| asked.len() + CONFIRM_COUNT);
        much && self.sent >= asked
    }

    /// A PING goes out after all responses sent so far.
    pub fn ask_confirmation(&mut self) {
        let done = self.entries.iter().filter(|(_, entry)| matches!(entry, Entry::Done { sent: true, .. }));
        self.asked = Some(done.map(|(id, _)| *id).collect());
    }

    /// Its PONG came: all responses before the PING have arrived.
    pub fn confirmed(&mut self) {
        for id in self.asked.take().unwrap_or_default() {
            if self.remove(id) && id > self.acked {
                self.note_arrived(id);
            }
        }
    }

    /// The connection is gone, and with it a PING and what was sent but not acknowledged.
    pub fn disconnected(&mut self) {
        self.asked = None;
        self.sent = 0;
        for entry in self.entries.values_mut() {
            if let Entry::Done { sent, .. } = entry {
                *sent = false;
            }
        }
    }

    fn forget_up_to(&mut self, acked: u64) -> Result<(), Violation> {
        if acked <= self.acked {
            return Ok(());
        }
        let later = self.entries.split_off(&(acked + 1));
        let forgotten = std::mem::replace(&mut self.entries, later);
        for entry in forgotten.values() {
            match entry {
                Entry::Running => return Err(Violation("acknowledged a response that was not sent")),
                Entry::Done { response, sent } => {
                    self.remembered_bytes -= response.len();
                    self.sent -= usize::from(*sent);
                }
            }
        }
        self.acked = acked;
        let above = self.arrived.split_off(&(acked + 1));
        let below = std::mem::replace(&mut self.arrived, above);
        if let Some(end) = below.values().next_back().filter(|end| **end > acked) {
            self.arrived.insert(acked + 1, *end);
        }
        Ok(())
    }

    fn remove(&mut self, id: u64) -> bool {
        match self.entries.remove(&id) {
            Some(Entry::Done { response, sent }) => {
                self.remembered_bytes -= response.len();
                self.sent -= usize::from(sent);
                true
            }
            Some(running @ Entry::Running) => {
                self.entries.insert(id, running);
                false
            }
            None => false,
        }
    }

    fn has_arrived(&self, id: u64) -> bool {
        self.arrived.range(..=id).next_back().is_some_and(|(_, end)| *end >= id)
    }

    fn note_arrived(&mut self, id: u64) {
        let mut start = id;
        let mut end = id;
        if let Some((before, last)) = self.arrived.range(..id).next_back() {
            if *last + 1 == id {
                start = *before;
            }
        }
        if let Some(last) = id.checked_add(1).and_then(|next| self.arrived.remove(&next)) {
            end = last;
        }
        self.arrived.insert(start, end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(requests: &mut Requests, id: u64, acked: u64) {
        assert!(matches!(requests.admit(id, acked), Ok(Admission::Run)), "request {id} does not run");
    }

    fn done(requests: &mut Requests, id: u64) {
        assert!(requests.finish(id, Rc::from(id.to_be_bytes()), true));
    }

    #[test]
    fn a_request_runs_once() {
        let mut requests = Requests::default();
        run(&mut requests, 1, 0);
        assert!(matches!(requests.admit(1, 0), Ok(Admission::Ignore)));
        done(&mut requests, 1);
        match requests.admit(1, 0) {
            Ok(Admission::Repeat(response)) => assert_eq!(*response, 1_u64.to_be_bytes()),
            _ => panic!("the response is not repeated"),
        }
        run(&mut requests, 2, 1);
        assert!(matches!(requests.admit(1, 1), Ok(Admission::Ignore)));
        assert_eq!(requests.remembered_bytes(), 0);
    }

    #[test]
    fn acknowledging_what_still_runs_is_a_violation() {
        let mut requests = Requests::default();
        run(&mut requests, 1, 0);
        assert!(requests.admit(2, 1).is_err());
    }

    #[test]
    fn only_1024_may_be_unanswered() {
        let mut requests = Requests::default();
        for id in 1..=1024 {
            run(&mut requests, id, 0);
        }
        assert!(requests.admit(1025, 0).is_err());
        done(&mut requests, 77);
        run(&mut requests, 1025, 0);
    }

    #[test]
    fn one_slow_request_does_not_make_all_others_be_remembered() {
        let mut requests = Requests::default();
        run(&mut requests, 1, 0);
        for id in 2..100_000 {
            run(&mut requests, id, 0);
            done(&mut requests, id);
            if requests.wants_confirmation() {
                requests.ask_confirmation();
                assert!(!requests.wants_confirmation());
                if id % 1000 == 0 {
                    // This PING is not answered; a later one is.
                    continue;
                }
                requests.confirmed();
            }
        }
        assert!(requests.entries.len() <= 3 * CONFIRM_COUNT);
        assert_eq!(requests.arrived.len(), 1);
        assert!(matches!(requests.admit(500, 0), Ok(Admission::Ignore)));
        done(&mut requests, 1);
        run(&mut requests, 100_000, 99_999);
        assert!(requests.arrived.is_empty());
        assert_eq!(requests.remembered_bytes(), 0);
    }

    #[test]
    fn a_pong_covers_only_what_was_answered_before_its_ping() {
        let mut requests = Requests::default();
        run(&mut requests, 1, 0);
        run(&mut requests, 2, 0);
        done(&mut requests, 1);
        requests.ask_confirmation();
        done(&mut requests, 2);
        requests.confirmed();
        assert!(matches!(requests.admit(1, 0), Ok(Admission::Ignore)));
        assert!(matches!(requests.admit(2, 0), Ok(Admission::Repeat(_))));
    }

    #[test]
    fn a_pong_does_not_cover_what_was_sent_on_an_earlier_connection() {
        let mut requests = Requests::default();
        run(&mut requests, 1, 0);
        run(&mut requests, 2, 0);
        done(&mut requests, 1);
        requests.disconnected();
        done(&mut requests, 2);
        requests.ask_confirmation();
        requests.confirmed();
        assert!(matches!(requests.admit(1, 0), Ok(Admission::Repeat(_))));
        assert!(matches!(requests.admit(2, 0), Ok(Admission::Ignore)));
    }

    #[test]
    fn ranges_that_arrived_are_cut_by_acknowledgement() {
        let mut requests = Requests::default();
        for id in 1..=6 {
            run(&mut requests, id, 0);
        }
        for id in [2, 3, 5, 4] {
            done(&mut requests, id);
        }
        requests.ask_confirmation();
        requests.confirmed();
        assert_eq!(requests.arrived.iter().collect::<Vec<_>>(), [(&2, &5)]);
        done(&mut requests, 1);
        run(&mut requests, 7, 3);
        assert_eq!(requests.arrived.iter().collect::<Vec<_>>(), [(&4, &5)]);
        assert!(matches!(requests.admit(4, 3), Ok(Admission::Ignore)));
    }
}

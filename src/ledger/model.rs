//! The ledger against a model that knows what became of every byte: tests.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Bytes of a line; all that happens, happens to whole lines.
const LINE: u64 = 3;
/// Every so many lines there is an empty one, which its source skips.
const EMPTY_EVERY: u64 = 5;
const PATH: &str = "/log";

/// What became of a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Byte {
    /// Another account has it.
    Elsewhere,
    /// It was settled before this account was opened.
    Before,
    Waiting,
    Claimed,
    Acked,
    Dropped,
    Dead,
    Lost,
}

impl Byte {
    fn is_settled(self) -> bool {
        !matches!(self, Byte::Waiting | Byte::Claimed)
    }
}

/// An account, and what it should say.
struct Life {
    account: Arc<FileLedger>,
    _attendance: Attendance,
    bytes: Vec<Byte>,
    /// Everything before it was read once, or need not be.
    fresh_from: u64,
    gone: bool,
    /// Lines and bytes, by what became of them.
    sums: Figures,
}

/// One file, with as many accounts as truncations and changed topics have made.
struct Model {
    ledger: Ledger,
    /// The newest last: the one that the file's new lines belong to.
    lives: Vec<Life>,
    /// Sums of the accounts that are closed.
    closed: Figures,
    size: u64,
    topics: u32,
    generation: u64,
    /// What is on its way: the account's number, and the range.
    chunks: Vec<(u64, u64, u64)>,
    /// What the last checkpoint has: what it says, and what was settled then.
    saved: (Vec<Entry>, Vec<bool>),
    /// What was on its way then of lives that were over, in bytes.
    saved_ended: u64,
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    HandedOn,
    GivenUp,
    Undone,
}

#[derive(Debug, Clone, Copy)]
enum End {
    Acked,
    Buried,
    Returned,
}

/// Everything that can happen; numbers choose among what there is.
#[derive(Debug, Clone)]
enum Action {
    Grow {
        lines: u64,
    },
    Claim {
        life: usize,
        from: u64,
        lines: u64,
        fate: Fate,
    },
    Settle {
        chunk: usize,
        lines: u64,
        end: End,
    },
    LetGo {
        chunk: usize,
    },
    Truncate {
        lines: u64,
    },
    ChangeTopic,
    CloseAndOpen,
    Save,
    Crash,
}

fn action() -> impl Strategy<Value = Action> {
    let fate = prop_oneof![
        6 => Just(Fate::HandedOn),
        1 => Just(Fate::GivenUp),
        1 => Just(Fate::Undone),
    ];
    let end = prop_oneof![5 => Just(End::Acked), 1 => Just(End::Buried), 2 => Just(End::Returned)];
    prop_oneof![
        4 => (1..9_u64).prop_map(|lines| Action::Grow { lines }),
        9 => (0..9_usize, 0..60_u64, 1..7_u64, fate)
            .prop_map(|(life, from, lines, fate)| Action::Claim { life, from, lines, fate }),
        9 => (0..99_usize, 1..7_u64, end)
            .prop_map(|(chunk, lines, end)| Action::Settle { chunk, lines, end }),
        2 => (0..99_usize).prop_map(|chunk| Action::LetGo { chunk }),
        1 => (0..6_u64).prop_map(|lines| Action::Truncate { lines }),
        1 => Just(Action::ChangeTopic),
        1 => Just(Action::CloseAndOpen),
        1 => Just(Action::Save),
        1 => Just(Action::Crash),
    ]
}

/// Records and empty lines in a range.
fn lines_in(from: u64, to: u64) -> (u64, u64) {
    let lines = from / LINE..to / LINE;
    let empty = lines.clone().filter(|n| n % EMPTY_EVERY == EMPTY_EVERY - 1);
    let empty = empty.count() as u64;
    (lines.count() as u64 - empty, empty)
}

fn mark_at(end: u64) -> Mark {
    Mark {
        end,
        len: 0,
        hash: 0,
    }
}

impl Life {
    fn new(account: FileLedger, bytes: Vec<Byte>, ledger: &Ledger) -> Life {
        let attendance = ledger.open(account);
        let account = Arc::clone(&attendance);
        Life {
            _attendance: attendance,
            fresh_from: account.position(),
            account,
            bytes,
            gone: false,
            sums: Figures::default(),
        }
    }

    fn grow(&mut self, size: u64) {
        self.bytes.resize(size as usize, Byte::Waiting);
        self.account.saw(size);
    }

    fn set(&mut self, from: u64, to: u64, byte: Byte) {
        for at in from..to {
            let was = &mut self.bytes[at as usize];
            assert!(
                !was.is_settled(),
                "byte {at} was {was:?} and becomes {byte:?}"
            );
            *was = byte;
        }
    }

    fn count(&self, fits: impl Fn(Byte) -> bool) -> u64 {
        self.bytes.iter().filter(|byte| fits(**byte)).count() as u64
    }

    fn position(&self) -> u64 {
        let waits = self.bytes.iter().position(|byte| !byte.is_settled());
        waits.unwrap_or(self.bytes.len()) as u64
    }

    fn gap(&self, from: u64) -> Gap {
        let is = |at: &u64, byte| self.bytes.get(*at as usize).is_none_or(|b| *b == byte);
        let from = from.max(self.position());
        let from = (from..)
            .find(|at| is(at, Byte::Waiting))
            .expect("the end waits");
        let size = self.bytes.len() as u64;
        let to = (from..size).find(|at| !is(at, Byte::Waiting));
        Gap { from, to }
    }

    fn is_over(&self) -> bool {
        self.bytes.iter().all(|byte| byte.is_settled())
    }

    fn figures(&self) -> Figures {
        let is = |wanted| self.count(|byte| byte == wanted);
        let unsettled =
            |(at, byte): &(usize, &Byte)| (*at as u64) < self.fresh_from && !byte.is_settled();
        let under_way = self.bytes.iter().enumerate().filter(unsettled).count();
        assert_eq!(self.sums.acked_bytes, is(Byte::Acked));
        assert_eq!(self.sums.dead_bytes, is(Byte::Dead));
        assert_eq!(
            self.sums.dropped_bytes.iter().sum::<u64>(),
            is(Byte::Dropped)
        );
        assert_eq!(self.sums.lost_bytes.iter().sum::<u64>(), is(Byte::Lost));
        Figures {
            known_bytes: self.count(|byte| !matches!(byte, Byte::Elsewhere | Byte::Before)),
            waiting_bytes: self.count(|byte| !byte.is_settled()),
            under_way_bytes: under_way as u64,
            ..self.sums
        }
    }

    fn lose(&mut self, from: u64, to: u64, reason: LossReason) {
        self.set(from, to, Byte::Lost);
        self.sums.lost_bytes[reason as usize] += to - from;
    }

    /// What a chunk of it becomes when it comes back.
    fn returned(&mut self, from: u64, to: u64) {
        if self.gone {
            self.lose(from, to, LossReason::Truncated);
        } else {
            self.set(from, to, Byte::Waiting);
        }
    }

    fn check(&self) {
        let account = &self.account;
        assert_eq!(account.position(), self.position());
        assert_eq!(account.figures(), self.figures());
        let figures = account.figures();
        let (dropped, lost): (u64, u64) = (
            figures.dropped_bytes.iter().sum(),
            figures.lost_bytes.iter().sum(),
        );
        let settled = figures.acked_bytes + dropped + figures.dead_bytes + lost;
        let waiting = self.count(|byte| !byte.is_settled());
        assert_eq!(figures.known_bytes, settled + waiting, "{figures:?}");
        assert_eq!(figures.waiting_bytes, waiting);
        for from in (0..=self.bytes.len() as u64).step_by(LINE as usize) {
            assert_eq!(account.gap(from), self.gap(from), "from {from}");
        }
        assert_eq!(
            account.is_quiet(),
            self.count(|byte| byte == Byte::Claimed) == 0
        );
    }
}

impl Model {
    fn new() -> Model {
        let ledger = Ledger::default();
        let mut model = Model {
            lives: Vec::new(),
            closed: Figures::default(),
            size: 0,
            topics: 0,
            generation: 0,
            chunks: Vec::new(),
            saved: (Vec::new(), Vec::new()),
            saved_ended: 0,
            ledger,
        };
        model.begin();
        model
    }

    fn origin(&self) -> (Origin, Arc<Flow>) {
        let origin = Origin {
            path: PATH.into(),
            real: None,
            topic: format!("t{}", self.topics).into(),
            device: 1,
            inode: 2,
            generation: self.generation,
            created_ns: None,
        };
        let flow = self.ledger.flow("h", Path::new(PATH), &origin.topic);
        (origin, flow)
    }

    /// Begins at the file's first byte.
    fn begin(&mut self) {
        let (origin, flow) = self.origin();
        let account = FileLedger::new(origin, flow, 0, Mark::default(), Mark::default());
        self.lives
            .push(Life::new(account, Vec::new(), &self.ledger));
        self.grow();
        self.save();
    }

    /// Goes on where an entry ends; `settled` is what should not come again.
    fn go_on(&mut self, settled: &[bool]) {
        let (origin, flow) = self.origin();
        let known = self.ledger.recall(1, 2, &origin.topic, Path::new(PATH));
        let Some(Known::Saved(entry)) = known else {
            panic!("nothing is known of {origin:?}");
        };
        let byte = |settled: &bool| [Byte::Waiting, Byte::Before][usize::from(*settled)];
        let account = FileLedger::resumed(&entry, origin, flow);
        let bytes = settled.iter().map(byte).collect();
        self.lives.push(Life::new(account, bytes, &self.ledger));
        self.grow();
    }

    fn newest(&mut self) -> &mut Life {
        self.lives.last_mut().expect("there always is one")
    }

    /// The newest account sees the file's size.
    fn grow(&mut self) {
        let size = self.size;
        self.newest().grow(size);
    }

    fn life(&mut self, number: u64) -> &mut Life {
        let mut lives = self.lives.iter_mut();
        let found = lives.find(|life| life.account.number() == number);
        found.expect("it is not closed while a chunk of it is on its way")
    }

    /// What of the file is settled, whichever account has it.
    fn settled(&self) -> Vec<bool> {
        let lives = self.lives.iter().filter(|life| !life.gone);
        let mut settled = vec![true; self.size as usize];
        for life in lives {
            for (at, byte) in life.bytes.iter().enumerate() {
                settled[at] &= byte.is_settled();
            }
        }
        settled
    }

    fn save(&mut self) {
        self.saved = (self.ledger.entries(), self.settled());
        self.saved_ended = self.ended();
    }

    /// What is on its way of lives that are over, in bytes.
    fn ended(&self) -> u64 {
        let over = self.lives.iter().filter(|life| life.gone);
        over.map(|life| life.count(|byte| byte == Byte::Claimed))
            .sum()
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Grow { lines } => {
                self.size += lines * LINE;
                self.grow();
            }
            Action::Claim {
                life,
                from,
                lines,
                fate,
            } => {
                let at = life % self.lives.len();
                self.claim(at, from * LINE, lines * LINE, fate);
            }
            Action::Settle { chunk, lines, end } => self.settle(chunk, lines * LINE, end),
            Action::LetGo { chunk } => {
                if !self.chunks.is_empty() {
                    let (number, from, to) = self.chunks.remove(chunk % self.chunks.len());
                    let life = self.life(number);
                    life.account.give_back(from, to);
                    life.returned(from, to);
                }
            }
            Action::Truncate { lines } => {
                for life in self.lives.iter_mut().filter(|life| !life.gone) {
                    life.account.lose_the_rest(LossReason::Truncated);
                    life.account.supersede();
                    let waiting = |byte: &Byte| *byte == Byte::Waiting;
                    while let Some(at) = life.bytes.iter().position(waiting) {
                        life.lose(at as u64, at as u64 + 1, LossReason::Truncated);
                    }
                    life.gone = true;
                }
                self.size = lines * LINE;
                self.generation += 1;
                self.begin();
            }
            Action::ChangeTopic => self.change_topic(),
            Action::CloseAndOpen => {
                if self.chunks.is_empty() && self.lives.len() == 1 {
                    let settled = self.settled();
                    self.close(0, super::Keep::Position);
                    self.go_on(&settled);
                    self.save();
                }
            }
            Action::Save => self.save(),
            Action::Crash => {
                let (entries, settled) = self.saved.clone();
                self.ledger = Ledger::remembering(entries);
                self.lives.clear();
                self.chunks.clear();
                self.closed = Figures::default();
                // Nobody can tell whether it arrived.
                self.closed.known_bytes = self.saved_ended;
                self.closed.lost_bytes[LossReason::Unconfirmed as usize] = self.saved_ended;
                self.go_on(&settled);
            }
        }
        let over = |life: &Life| life.is_over();
        while let Some(at) = self.lives[..self.lives.len() - 1].iter().position(over) {
            self.close(at, super::Keep::Nothing);
        }
    }

    fn claim(&mut self, at: usize, from: u64, bytes: u64, fate: Fate) {
        let life = &mut self.lives[at];
        let gap = life.account.gap(from);
        let end = gap.to.unwrap_or(life.bytes.len() as u64);
        let (from, to) = (gap.from, end.min(gap.from + bytes));
        if from >= to || life.gone {
            return;
        }
        let fresh = to.saturating_sub(life.fresh_from.max(from)) / LINE;
        let ticket = life.account.claim(from, to, fresh, mark_at(to));
        let number = life.account.number();
        if let Fate::Undone = fate {
            return drop(ticket);
        }
        life.sums.read_bytes += fresh * LINE;
        life.sums.read_lines += fresh;
        life.fresh_from = life.fresh_from.max(to);
        if let Fate::GivenUp = fate {
            let (records, empty) = lines_in(from, to);
            life.set(from, to, Byte::Dropped);
            life.sums.dropped_bytes[DropReason::QueueFull as usize] += to - from;
            life.sums.dropped_lines[DropReason::QueueFull as usize] += records + empty;
            return ticket.give_up(records + empty, DropReason::QueueFull);
        }
        ticket.hand_on();
        life.set(from, to, Byte::Claimed);
        self.chunks.push((number, from, to));
    }

    /// The first lines of a chunk, in a batch.
    fn settle(&mut self, chunk: usize, bytes: u64, end: End) {
        if self.chunks.is_empty() {
            return;
        }
        let at = chunk % self.chunks.len();
        let (number, from, last) = self.chunks[at];
        let to = last.min(from + bytes);
        self.chunks[at].1 = to;
        if to == last {
            self.chunks.remove(at);
        }
        let (records, empty) = lines_in(from, to);
        let life = self.life(number);
        let claim = Claim::new(Arc::clone(&life.account), (from, to), records, empty);
        match end {
            End::Acked => {
                claim.ack();
                life.set(from, to, Byte::Acked);
                life.sums.acked_bytes += to - from;
                life.sums.acked_lines += records;
            }
            End::Buried => {
                claim.bury();
                life.set(from, to, Byte::Dead);
                life.sums.dead_bytes += to - from;
                life.sums.dead_lines += records;
            }
            End::Returned => {
                drop(claim);
                return life.returned(from, to);
            }
        }
        life.sums.dropped_lines[DropReason::Empty as usize] += empty;
    }

    /// What was read stays the old topic's, the rest is the new one's.
    fn change_topic(&mut self) {
        self.topics += 1;
        let (origin, flow) = self.origin();
        let before = self.newest();
        let read_to = before.account.read_to();
        before.bytes.truncate(read_to as usize);
        let account = FileLedger::following(&before.account, origin, flow, mark_at(read_to));
        let bytes = vec![Byte::Elsewhere; read_to as usize];
        self.lives.push(Life::new(account, bytes, &self.ledger));
        self.grow();
        self.save();
    }

    fn close(&mut self, at: usize, keep: super::Keep) {
        let life = self.lives.remove(at);
        let figures = life.figures();
        self.ledger.close(&life.account, keep);
        // What waits is known again by whoever goes on.
        self.closed += Figures {
            known_bytes: figures.known_bytes - figures.waiting_bytes,
            waiting_bytes: 0,
            under_way_bytes: 0,
            ..figures
        };
    }

    fn check(&self) {
        for life in &self.lives {
            life.check();
        }
        let lives = self.lives.iter().map(Life::figures);
        let sum = lives.fold(self.closed, |sum, figures| sum + figures);
        assert_eq!(self.ledger.figures(), sum);
        let by_topic = self.ledger.figures_by_topic().into_values();
        assert_eq!(by_topic.fold(Figures::default(), |sum, one| sum + one), sum);
        self.check_entry();
    }

    /// What would be written down now has every settled byte, and no other.
    fn check_entry(&self) {
        let entries = self.ledger.entries();
        let (ended, entries): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.ended);
        let ended: u64 = ended.iter().map(Entry::unread_bytes).sum();
        assert_eq!(ended, self.ended());
        let [entry] = &entries[..] else {
            panic!("one file, and {} entries", entries.len());
        };
        let mut ranges = vec![(0, entry.position)];
        ranges.extend(&entry.beyond);
        let order = ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0);
        assert!(order, "{ranges:?}");
        let written = |at: u64| ranges.iter().any(|(from, to)| (*from..*to).contains(&at));
        for (at, settled) in self.settled().into_iter().enumerate() {
            assert_eq!(written(at as u64), settled, "byte {at} of {entry:?}");
        }
        assert!(entry.window.end <= entry.position, "{entry:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// After every step: known = acked + waiting + dropped + dead + lost, for each
    /// account and in sum; nothing settled or on its way is offered, all the rest
    /// is; and what a crash would go on from is what is settled, to the byte.
    #[test]
    fn every_byte_is_where_the_model_has_it(actions in vec(action(), 1..120)) {
        let mut model = Model::new();
        for action in actions {
            model.act(action);
            model.check();
        }
    }
}

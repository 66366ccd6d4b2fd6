//! One life of one file: from its first byte to its truncation or removal.
//!
//! It reads, claims and offers; it notices that the file was truncated or
//! rewritten. Which files there are, and in which order they are read, is the
//! tailer's.

use std::io;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::ledger::{Attendance, DropReason, FileLedger, LossReason, Mark};
use crate::queue::{Chunk, Queue, Refused};

use super::cut::{self, Bounds, Cursor, Cut, Lines};
use super::identity;
use super::input::{Input, Look};
use super::registry::InodeClaim;
use super::{Job, WhenFull};

/// A file that is being read.
#[derive(Debug)]
pub struct Generation {
    input: Input,
    /// `None` for standard input.
    claim: Option<Arc<InodeClaim>>,
    ledger: Attendance,
    job: Arc<Job>,
    cursor: Cursor,
    /// Fingerprint of bytes that were read. What follows them in the file belongs
    /// to it only as long as they are there.
    window: Mark,
    last: Look,
    /// Fingerprint of the file's end at the last look, as long as it has NUL bytes at its head
    /// and no line of it is read: nothing else tells it from another life with a hole.
    end: Mark,
    /// The last look was so soon after a change that it may hide another one.
    unsure: bool,
    /// It was when the last lines were taken.
    just_looked: bool,
    epoch: u32,
    /// NUL bytes at the head are what a writer without O_APPEND left of a
    /// truncated file.
    skip_nuls: bool,
    /// Since when everything there is has been read.
    at_end_since: Option<Instant>,
    /// From here to here there was room only when all was read; nothing is written there yet.
    room: Option<(u64, u64)>,
    /// With `--once`: the size at the beginning. A line that begins before it
    /// is the last; a live writer would otherwise keep us for ever.
    once_end: Option<u64>,
    /// Where another topic goes on: nothing behind it is read.
    until: Option<u64>,
}

/// What a step did.
#[derive(Debug)]
pub enum Step {
    /// Something was read: go on at once.
    Busy,
    /// There is more to read, but no room for it.
    Full,
    /// Nothing new.
    Idle,
    /// The file was truncated or rewritten: this life is over.
    Truncated,
    /// The producers are gone.
    Closed,
}

impl Generation {
    /// Starts to read where the ledger's position is.
    pub fn new(
        input: Input,
        claim: Option<Arc<InodeClaim>>,
        ledger: Attendance,
        job: Arc<Job>,
        once: bool,
    ) -> io::Result<Generation> {
        let position = ledger.position();
        let last = input.look()?;
        let mut generation = Generation {
            window: ledger.newest_window(),
            cursor: Cursor::at(position),
            epoch: ledger.flow().epoch(),
            input,
            claim,
            job,
            last,
            end: Mark::default(),
            // The account may be of a shorter file, or of one that was rewritten since.
            unsure: true,
            ledger,
            just_looked: false,
            skip_nuls: false,
            at_end_since: None,
            room: None,
            once_end: once.then_some(last.size),
            until: None,
        };
        // Whoever had the account before may have found room where lines are by now.
        generation.ledger.set_room(None);
        // The file's size is known from now on, if it is its own: a step tells if not.
        generation.was_rewritten()?;
        Ok(generation)
    }

    /// Goes on where `before` has read to, for another topic: with what it knows of the
    /// file, so that nothing that happens to it meanwhile goes unseen.
    pub fn following(
        before: &Generation,
        claim: Option<Arc<InodeClaim>>,
        ledger: Attendance,
        job: Arc<Job>,
    ) -> Generation {
        let position = ledger.position();
        let cursor = match before.cursor.offset == position {
            true => before.cursor,
            false => Cursor::at(position),
        };
        Generation {
            window: ledger.window(),
            cursor,
            epoch: ledger.flow().epoch(),
            input: before.input.clone(),
            claim,
            job,
            last: before.last,
            end: before.end,
            unsure: true,
            ledger,
            just_looked: false,
            skip_nuls: before.skip_nuls,
            at_end_since: None,
            room: before.room,
            once_end: None,
            until: None,
        }
    }

    /// The file's account.
    pub fn ledger(&self) -> &Arc<FileLedger> {
        &self.ledger
    }

    /// True for the file that this claim is for.
    pub fn has(&self, device: u64, inode: u64) -> bool {
        let origin = self.ledger.origin();
        (origin.device, origin.inode) == (device, inode)
    }

    /// True for standard input, which has no path and no end until its writer
    /// says so.
    pub fn is_stdin(&self) -> bool {
        matches!(self.input, Input::Stdin(_))
    }

    /// True for an input that ended because it could not be read.
    pub fn has_failed(&self) -> bool {
        self.input.has_failed()
    }

    /// What the last look at the file told.
    pub fn last_look(&self) -> Look {
        self.last
    }

    /// Since when everything there is has been read.
    pub fn at_end_since(&self) -> Option<Instant> {
        self.at_end_since
    }

    /// From now on its lines are dealt with like this, to the same topic.
    pub fn serve(&mut self, job: &Arc<Job>) {
        self.job = Arc::clone(job);
    }

    /// Nothing is read for its topic any more but what comes back.
    pub fn retire(&mut self) {
        self.until = Some(self.ledger.read_to());
    }

    /// True when nothing can come back any more for the topic of before.
    pub fn is_retired(&self) -> bool {
        self.until
            .is_some_and(|until| self.ledger.is_settled(until))
    }

    /// The newest fingerprint of bytes that were read.
    pub fn window(&self) -> Mark {
        self.window
    }

    /// What is read from.
    pub fn input(&self) -> &Input {
        &self.input
    }

    /// Its inode, which nobody else has.
    pub fn claim(&self) -> Option<Arc<InodeClaim>> {
        self.claim.clone()
    }

    /// True when all there is was read and nothing of it is on its way, for that
    /// long.
    pub fn is_quiet_for(&self, time: Duration) -> bool {
        self.at_end_since
            .is_some_and(|since| since.elapsed() >= time)
            && self.ledger.is_quiet()
            && self.ledger.position() == self.cursor.offset
    }

    /// Gives the handle back; what a sleeper needs stays.
    pub fn close(self) -> (Attendance, Option<Arc<InodeClaim>>) {
        (self.ledger, self.claim)
    }

    fn goal(&self) -> Option<u64> {
        self.until.or(self.once_end)
    }

    /// True when everything there is has been settled.
    pub fn is_settled(&self) -> bool {
        let room_from = self.room.map_or(u64::MAX, |(from, _)| from);
        let goal = self.goal().unwrap_or(self.last.size).min(room_from);
        self.at_end_since.is_some() && self.cursor.offset >= goal && self.ledger.is_settled(goal)
    }

    /// The file goes on as a new life after a truncation: what was not read is
    /// lost, and reading begins again at 0.
    pub fn next_life(self, ledger: Attendance) -> io::Result<(Generation, Attendance)> {
        self.give_up(LossReason::Truncated);
        let once = self.once_end.is_some();
        let mut next = Generation::new(self.input, self.claim, ledger, self.job, once)?;
        next.skip_nuls = true;
        Ok((next, self.ledger))
    }

    /// The bytes are gone, or soon will be: what was not read is lost.
    pub fn give_up(&self, reason: LossReason) {
        self.ledger.lose_the_rest(reason);
        self.ledger.supersede();
    }

    /// NUL bytes at the head are what a truncation left.
    pub fn skip_nuls(&mut self) {
        self.skip_nuls = true;
    }

    /// Fingerprint of the head, for the account of the next life.
    pub fn fresh_head(&self) -> io::Result<Mark> {
        identity::head(&self.input, self.input.look()?.size)
    }

    /// Reads and offers the next lines. With `complete`, a last line without
    /// line end is a line.
    pub fn step(&mut self, complete: bool, queue: &Queue) -> io::Result<Step> {
        // First of all: a truncation must not go unseen while Kafka is away. After lines
        // were taken a moment ago it was just looked for.
        if !mem::take(&mut self.just_looked) && self.was_rewritten()? {
            return Ok(Step::Truncated);
        }
        if !self.catch_up_with_epoch() {
            return Ok(Step::Full);
        }
        self.input.release(self.ledger.position());
        let gap = self.ledger.gap(self.cursor.offset);
        if gap.from != self.cursor.offset {
            self.cursor = Cursor::at(gap.from);
        }
        let line_bytes_max = self.job.shape.line_bytes_max;
        let done = self.goal().is_some_and(|goal| self.cursor.offset >= goal);
        let end = match gap.to {
            _ if done => self.cursor.offset,
            Some(to) => to,
            None => self.until.unwrap_or(self.last.size),
        };
        let complete = complete || self.until.is_some() || gap.to.is_some() || self.last.ended;
        self.look_at_room()?; // the last one may have been before lines were taken
        let scanned = self.is_scanned(end);
        if scanned && !self.has_tail(end, complete) {
            self.note_end();
            cut::forget_rest(&self.input, &self.cursor, line_bytes_max);
            self.ledger.tell_dropped();
            return Ok(Step::Idle);
        }
        let held = self.ledger.flow().is_held();
        if (held || !queue.has_room()) && self.job.when_full == WhenFull::Wait {
            return Ok(Step::Full);
        }
        if self.skip_nuls {
            return self.skip_nul_hole(end);
        }
        let bounds = Bounds {
            end,
            // Whether a tail is a line or room only is known when all of it is seen.
            complete: complete && (scanned || gap.to.is_some() || !self.input.may_have_room()),
            line_bytes_max,
        };
        let _turn = self.cursor.is_in_line().then(|| queue.long_line_turn());
        match cut::next(&self.input, &mut self.cursor, bounds, queue)? {
            Cut::Lines(lines) => self.offer(lines, held, queue),
            Cut::Partial => Ok(Step::Busy),
            Cut::Nothing if !scanned && self.is_scanned(end) && self.has_tail(end, complete) => {
                Ok(Step::Busy)
            }
            Cut::Nothing => {
                self.note_end();
                Ok(Step::Idle)
            }
        }
    }

    /// Everything there is has been read.
    fn note_end(&mut self) {
        if self.at_end_since.is_some() {
            return;
        }
        self.at_end_since = Some(Instant::now());
        let (cursor, size) = (&self.cursor, self.last.size);
        let is_room = cursor.room < size && cursor.seen_to() >= size;
        let is_own = self.until.is_none() && self.input.may_have_room();
        self.room = (is_room && is_own).then_some((cursor.room, size));
        self.ledger.set_room(self.room.map(|(from, _)| from));
    }

    /// All up to `end` is read, or known to hold no line end.
    fn is_scanned(&self, end: u64) -> bool {
        self.cursor.scanned.max(self.cursor.offset) >= end
    }

    /// An unfinished last line that now counts as a line.
    fn has_tail(&self, end: u64, complete: bool) -> bool {
        let is_room = self.cursor.has_room_only() && self.input.may_have_room();
        complete && self.cursor.offset < end && !is_room
    }

    /// When a range came back, holds still until everything queued behind it has
    /// come back as well, then goes back to the first gap. See [`Flow`].
    ///
    /// [`Flow`]: crate::ledger::Flow
    fn catch_up_with_epoch(&mut self) -> bool {
        let flow = self.ledger.flow();
        let epoch = flow.epoch();
        if epoch == self.epoch {
            return true;
        }
        if flow.queued() > 0 {
            return false;
        }
        self.epoch = epoch;
        self.at_end_since = None;
        self.cursor = Cursor::at(self.ledger.position());
        true
    }

    /// Looks at the file: did it change in a way that appending does not explain?
    pub fn was_rewritten(&mut self) -> io::Result<bool> {
        let look = self.input.look()?;
        if look == self.last && !self.unsure {
            self.look_at_room()?;
            return Ok(false);
        }
        // What is behind the end of a topic of before is not its own.
        let own = self.until.unwrap_or(u64::MAX).min(self.last.size);
        let shrunk = look.size < own;
        let fits = |mark: Mark| identity::fits(&self.input, mark);
        if (shrunk && !self.gave_room_back(look.size)) || !fits(self.window)? || !fits(self.end)? {
            return Ok(true);
        }
        let head = self.ledger.head();
        let Some(grown) = identity::grown_head(&self.input, head, look.size)? else {
            return Ok(true);
        };
        if grown != head {
            self.ledger.set_head(grown);
        }
        if shrunk {
            self.cursor.shrink_to(look.size);
            self.ledger.shrink_to(look.size);
            self.room = self.room.filter(|(from, _)| *from < look.size);
            self.once_end = self.once_end.map(|end| end.min(look.size));
        }
        if look.size > self.last.size {
            self.at_end_since = None;
        }
        self.ledger
            .saw(self.goal().unwrap_or(look.size).min(look.size));
        let is_blank = grown.len == 0 && look.size > 0 && self.ledger.figures().read_lines == 0;
        self.end = match is_blank && self.has_byte(look.size - 1)? {
            true => identity::window(&self.input, look.size)?,
            false => Mark::default(),
        };
        self.last = look;
        self.unsure = look.may_hide_a_change();
        self.look_at_room()?;
        Ok(false)
    }

    /// True when a file shrank only by NUL bytes that were never written over: room that its
    /// writer had made for lines and did not need.
    fn gave_room_back(&self, size: u64) -> bool {
        let cursor = &self.cursor;
        let seen = (cursor.seen_to() >= self.last.size).then_some(cursor.room);
        let noted = self.room.filter(|(_, to)| *to >= self.last.size);
        let room = seen.or(noted.map(|(from, _)| from));
        room.is_some_and(|from| from <= size) && self.ledger.read_to() <= size
    }

    /// Something may be written where there was only room: it is read, and known, from then on.
    fn look_at_room(&mut self) -> io::Result<()> {
        if !self.input.may_have_room() {
            return Ok(()); // what is not shipped of a long line is not there any more
        }
        let cursor = &self.cursor;
        let room = (cursor.room < cursor.scanned).then_some(cursor.room);
        if let Some(room) = room.or(self.room.map(|(from, _)| from))
            && self.has_byte(room)?
        {
            self.room = None;
            self.ledger.set_room(None);
            self.cursor.enter_room();
            self.at_end_since = None;
        }
        Ok(())
    }

    /// True when another byte than NUL stands there.
    fn has_byte(&self, at: u64) -> io::Result<bool> {
        let mut byte = [0];
        let read = self.input.read_at(&mut byte, at)?;
        Ok(read == 1 && byte != [0])
    }

    /// Offers lines to the queue, which is as good as full for a flow that is held.
    fn offer(&mut self, lines: Lines, held: bool, queue: &Queue) -> io::Result<Step> {
        let (from, to) = (self.cursor.offset, lines.to);
        let bytes = &lines.buffer[..lines.len];
        let window = identity::window_of_chunk(&self.input, to, bytes, !lines.cut)?;
        let before = self.cursor;
        self.cursor.pass_lines(&lines);
        // Once more, now that they are read: do they belong to this life?
        if self.was_rewritten()? {
            return Ok(Step::Truncated);
        }
        let fresh = fresh_lines(&lines, from, self.ledger.fresh_from());
        let ticket = self.ledger.claim(from, to, fresh, window);
        let count = lines.lines;
        let chunk = Chunk::new(
            Arc::clone(&self.ledger),
            Arc::clone(&self.job.shape),
            (from, to),
            count,
            lines.cut,
            now_ms(),
            self.epoch,
            lines.buffer,
            lines.len,
        );
        let taken = if held {
            Err(Refused::Full)
        } else {
            queue.try_send(chunk)
        };
        match taken {
            Ok(()) => {
                ticket.hand_on();
                self.just_looked = true;
            }
            Err(Refused::Full) if self.job.when_full == WhenFull::Drop => {
                ticket.give_up(count, DropReason::QueueFull);
            }
            Err(Refused::Full) => {
                self.cursor = before;
                self.cursor.shrink_to(self.last.size);
                return Ok(Step::Full);
            }
            Err(Refused::Closed) => return Ok(Step::Closed),
        }
        self.window = window;
        Ok(Step::Busy)
    }

    fn skip_nul_hole(&mut self, end: u64) -> io::Result<Step> {
        let from = self.cursor.offset;
        let want = (end - from).min(cut::BLOCK_BYTES as u64) as usize;
        let mut block = vec![0; want];
        let read = self.input.read_at(&mut block, from)?;
        let nuls = block[..read].iter().take_while(|&&byte| byte == 0).count();
        self.skip_nuls = nuls == read;
        if nuls > 0 {
            let to = from + nuls as u64;
            let window = identity::window(&self.input, to)?;
            if self.was_rewritten()? {
                return Ok(Step::Truncated);
            }
            let ticket = self.ledger.claim(from, to, 0, window);
            ticket.give_up(0, DropReason::NulHole);
            self.cursor = Cursor::at(to);
            self.window = window;
        }
        Ok(Step::Busy)
    }
}

/// Records in the part of the lines that was never read before.
fn fresh_lines(lines: &Lines, from: u64, read_to: u64) -> u64 {
    if read_to <= from {
        lines.lines
    } else if read_to >= lines.to || lines.cut {
        0
    } else {
        let skip = usize::try_from(read_to - from).expect("it is within a chunk");
        cut::count_lines(&lines.buffer[skip..lines.len])
    }
}

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::path::Path;

    use crossbeam_channel::Receiver;

    use super::*;
    use crate::ledger::{Ledger, Origin};
    use crate::queue;
    use crate::record::Shape;
    use crate::tail::input::CLOCK_TICK;
    use crate::tail::{Handles, ReadFrom};

    /// A file, somebody who reads it, and where its lines go.
    struct Scene {
        file: File,
        generation: Generation,
        queue: Queue,
        chunks: Receiver<Chunk>,
    }

    impl Scene {
        fn of(bytes: &[u8]) -> Scene {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(bytes, 0).unwrap();
            let handle = Handles::new(None).take().unwrap();
            let input = Input::file(file.try_clone().unwrap(), handle);
            let topic: Arc<str> = "t".into();
            let origin = Origin {
                path: "/a".into(),
                real: None,
                topic: Arc::clone(&topic),
                device: 1,
                inode: 1,
                generation: 0,
                created_ns: None,
            };
            let flow = Ledger::default().flow("h", Path::new("/a"), &topic);
            let head = identity::head(&input, bytes.len() as u64).unwrap();
            let ledger = FileLedger::new(origin, flow, 0, head, Mark::default());
            let shape = Shape {
                line_bytes_max: 1 << 20,
                ..Shape::default()
            };
            let job = Job {
                topic,
                read_from: ReadFrom::Beginning,
                when_full: WhenFull::Wait,
                shape: Arc::new(shape),
                fence: None,
            };
            let generation =
                Generation::new(input, None, Arc::new(ledger).attend(), Arc::new(job), false)
                    .unwrap();
            let (queue, mut receivers) = queue::queue(1, 1 << 20);
            Scene {
                file,
                generation,
                queue,
                chunks: receivers.remove(0),
            }
        }

        fn step(&mut self) -> Step {
            self.generation.step(false, &self.queue).unwrap()
        }

        /// The lines from where reading stands to `end`, read and not offered yet.
        fn lines_to(&self, end: u64) -> Lines {
            let bounds = Bounds {
                end,
                complete: false,
                line_bytes_max: 100,
            };
            let mut cursor = self.generation.cursor;
            let read = cut::next(&self.generation.input, &mut cursor, bounds, &self.queue);
            let Cut::Lines(lines) = read.unwrap() else {
                panic!("there were lines");
            };
            lines
        }

        /// Steps until there is nothing to do, and acknowledges what came.
        fn read_all(&mut self) {
            while let Step::Busy = self.step() {
                for mut chunk in self.chunks.try_iter() {
                    let (to, lines) = (chunk.to, chunk.lines);
                    chunk.hand_over(to, lines, 0).ack();
                }
            }
        }
    }

    /// An account that was opened on an empty file kept the fingerprint of nothing when
    /// the file was opened again, grown: no copy of it was known by its head, and the
    /// lines of the one that copytruncate made came twice.
    #[test]
    fn a_file_that_grew_while_nobody_had_it_open_has_the_head_that_it_grew() {
        let mut scene = Scene::of(b"");
        scene.file.write_all_at(b"one\ntwo\n", 0).unwrap();
        std::thread::sleep(2 * CLOCK_TICK); // so that the next look is believed
        let Generation {
            input, ledger, job, ..
        } = scene.generation;
        let account = Arc::clone(&ledger);
        scene.generation = Generation::new(input, None, ledger, job, false).unwrap();

        scene.read_all();

        let head = identity::head(&scene.generation.input, 8).unwrap();
        assert_eq!(account.head(), head);
    }

    /// Between looking and reading there is time for a truncation and for a
    /// regrowth past the position. Nothing of the new life may be taken for lines
    /// of the old one: its beginning would be missing for ever.
    #[test]
    fn lines_read_from_a_file_that_was_rewritten_meanwhile_are_not_claimed() {
        let mut scene = Scene::of(b"one\ntwo\n");
        scene.read_all();
        scene
            .file
            .write_all_at(b"ONE\nTWO\nthree\nfour\n", 0)
            .unwrap();
        let lines = scene.lines_to(19);
        let step = scene.generation.offer(lines, false, &scene.queue).unwrap();
        assert!(matches!(step, Step::Truncated), "{step:?}");
        assert_eq!(scene.generation.ledger().read_to(), 8);
        assert!(scene.chunks.is_empty());
    }

    /// The clocks of many file systems tick every few milliseconds, and a rewrite of
    /// equal size within a tick leaves no trace in what stat says. The clock here
    /// may be a finer one, so the trace is taken away by hand.
    #[test]
    fn a_rewrite_of_equal_size_within_a_tick_of_the_clock_is_noticed() {
        let mut scene = Scene::of(b"one\ntwo\n");
        scene.read_all();
        scene.generation.unsure = true; // as a look so soon after a write is
        scene.file.write_all_at(b"ONE\nTWO\n", 0).unwrap();
        scene.generation.last = scene.generation.input.look().unwrap();
        let step = scene.step();
        assert!(matches!(step, Step::Truncated), "{step:?}");
    }

    /// An account may be made a while before its file is read: for another topic, or by
    /// a tailer that waited. What happened meanwhile is not taken for how it was.
    #[test]
    fn a_rewrite_between_two_who_read_a_file_is_noticed_by_the_second() {
        let mut scene = Scene::of(b"one\ntwo\n");
        scene.read_all();
        scene.file.write_all_at(b"ONE\nTWO\nthree\n", 0).unwrap();
        std::thread::sleep(2 * crate::tail::input::CLOCK_TICK); // it is no news any more
        let first = scene.generation;
        let (input, job) = (first.input.clone(), Arc::clone(&first.job));
        scene.generation =
            Generation::new(input, None, first.ledger().attend(), job, false).unwrap();
        let step = scene.step();
        assert!(matches!(step, Step::Truncated), "{step:?}");
    }

    /// ... or by nobody: between a restarted logship's recognising its file and the first
    /// look at it there is time for a truncation, and what was known of it from before was
    /// never told.
    #[test]
    fn what_was_known_of_a_file_is_lost_when_it_is_truncated_before_its_first_look() {
        let scene = Scene::of(b"one\ntwo\n");
        let account = scene.generation.ledger();
        let mut entry = account.entry();
        (entry.position, entry.window) = (4, identity::window(&scene.generation.input, 4).unwrap());
        let origin = entry.origin.clone();
        let flow = Arc::clone(account.flow());
        let account = FileLedger::resumed(&entry, origin, flow);
        scene.file.set_len(0).unwrap();
        let Generation { input, job, .. } = scene.generation;
        let attendance = Arc::new(account).attend();
        let mut generation = Generation::new(input, None, attendance, job, false).unwrap();
        let step = generation.step(false, &scene.queue).unwrap();
        assert!(matches!(step, Step::Truncated), "{step:?}");
        generation.give_up(LossReason::Truncated);
        let figures = generation.ledger().figures();
        assert_eq!(figures.lost_bytes[LossReason::Truncated as usize], 4);
    }

    /// ... and another topic's account began with what was read to, and knew of no more.
    #[test]
    fn what_was_known_of_a_file_is_lost_when_it_is_truncated_as_its_topic_changes() {
        let scene = Scene::of(b"one\ntwo\n");
        let old = scene.generation.ledger();
        let origin = Origin {
            topic: "two".into(),
            ..old.origin().clone()
        };
        let ledger = Ledger::default();
        let flow = ledger.flow("h", Path::new("/a"), &origin.topic);
        let attendance = ledger.open_after(old, origin, flow, scene.generation.window());
        scene.file.set_len(0).unwrap();
        let job = Arc::clone(&scene.generation.job);
        let mut next = Generation::following(&scene.generation, None, attendance, job);
        let step = next.step(false, &scene.queue).unwrap();
        assert!(matches!(step, Step::Truncated), "{step:?}");
        next.give_up(LossReason::Truncated);
        let figures = next.ledger().figures();
        assert_eq!(figures.lost_bytes[LossReason::Truncated as usize], 8);
    }

    /// A writer without O_APPEND leaves a hole with each truncation: after two of them while
    /// Kafka was away, what was between was dropped with the second hole.
    #[test]
    fn a_life_with_a_hole_at_its_head_is_told_from_the_next_one_with_a_hole() {
        let mut scene = Scene::of(&[&[0; 2000], &b"one\n"[..]].concat());
        assert!(!scene.generation.was_rewritten().unwrap());
        scene.file.set_len(0).unwrap();
        scene.file.write_all_at(b"two\n", 2004).unwrap();
        assert!(scene.generation.was_rewritten().unwrap());
    }

    /// Its writer has no more to write, and cuts off what it did not need, before
    /// anybody looked at that by itself.
    #[test]
    fn room_that_is_given_back_right_behind_the_last_line_is_no_rewrite() {
        let mut scene = Scene::of(b"one\n");
        scene.read_all();
        scene
            .file
            .write_all_at(b"two\n\0\0\0\0\0\0\0\0", 4)
            .unwrap();
        let step = scene.step();
        assert!(matches!(step, Step::Busy), "{step:?}");
        scene.file.set_len(8).unwrap();
        scene.file.write_all_at(b"end\n", 8).unwrap();
        scene.read_all();
        let ledger = scene.generation.ledger();
        assert_eq!((ledger.read_to(), ledger.position()), (12, 12));
    }

    /// ... or after the lines were read and before they are offered.
    #[test]
    fn room_that_is_given_back_while_lines_are_offered_is_no_rewrite() {
        let mut scene = Scene::of(b"one\n\0\0\0\0");
        let lines = scene.lines_to(8);
        scene.file.set_len(4).unwrap();
        let step = scene.generation.offer(lines, false, &scene.queue).unwrap();
        assert!(matches!(step, Step::Busy), "{step:?}");
    }

    /// What took a file's place was reported as lost with it, when it came while the file
    /// was opened.
    #[test]
    fn what_a_file_was_rewritten_to_while_it_was_opened_is_not_known_of_the_old_one() {
        let mut scene = Scene::of(b"one\n");
        scene.file.write_all_at(b"TWO\nTHREE\n", 0).unwrap();
        let Generation {
            input, ledger, job, ..
        } = scene.generation;
        ledger.saw(4);
        let account = Arc::clone(&ledger);
        scene.generation = Generation::new(input, None, ledger, job, false).unwrap();
        let step = scene.step();
        assert!(matches!(step, Step::Truncated), "{step:?}");
        assert_eq!(account.size(), 4);
    }

    #[test]
    fn growth_is_no_rewrite_also_where_the_head_grows_with_it() {
        let mut scene = Scene::of(b"");
        let line = [b'x'; 99];
        for n in 0..30 {
            let at = n * 100;
            scene.file.write_all_at(&line, at).unwrap();
            scene.file.write_all_at(b"\n", at + 99).unwrap();
            scene.read_all();
            assert_eq!(scene.generation.ledger().position(), at + 100);
        }
        assert_eq!(scene.generation.ledger().head().len, 1024);
    }

    /// Room that came after a change of topic is given back in part.
    #[test]
    fn room_that_is_given_back_takes_nothing_from_a_topic_of_before() {
        let mut scene = Scene::of(b"one\n");
        while let Step::Busy = scene.step() {}
        let mut old = scene.generation;
        old.retire();
        scene.file.set_len(2000).unwrap();
        assert!(!old.was_rewritten().unwrap());
        scene.file.set_len(1000).unwrap();
        assert!(
            !old.was_rewritten().unwrap(),
            "its four bytes are told as lost"
        );
    }
}

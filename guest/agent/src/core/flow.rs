//! Frames and events that concern one stream.

use skerry_protocol::{Failure, Frame, Violation};

use super::input::{self, Sink};
use super::output::{self, Reader, Source};
use super::{Core, Effect, InputState, Link, MAX_RECENT_RESETS, MAX_WRITE_RESULTS};

impl Core {
    /// A frame of the sender of an input stream. One for a stream that is gone crossed our RESET.
    pub(super) fn input_frame(
        &mut self,
        stream: u32,
        take: impl FnOnce(&mut input::Input) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        match self.streams.input_mut(stream) {
            Some(input) => take(input)?,
            None => return self.gone_input(stream),
        }
        self.effects.push_back(Effect::WriteInput(stream));
        Ok(())
    }

    fn gone_input(&self, stream: u32) -> Result<(), Violation> {
        if self.streams.output(stream).is_some() {
            return Err(Violation("DATA or END for an output stream"));
        }
        self.must_be_known(stream)
    }

    fn must_be_known(&self, stream: u32) -> Result<(), Violation> {
        if self.streams.is_known(stream) { Ok(()) } else { Err(Violation("a stream that never was")) }
    }

    /// A frame of the receiver of an output stream. One for a stream that is gone crossed our RESET or END.
    pub(super) fn output_frame(
        &mut self,
        stream: u32,
        take: impl FnOnce(&mut output::Output) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        match self.streams.change(stream, take) {
            Some(result) => result?,
            None => return self.must_be_known(stream),
        }
        self.streams.forget_delivered(stream);
        self.forget_settled(stream);
        if self.streams.output(stream).is_some_and(|output| output.source == Source::File && !output.ended) {
            self.effects.push_back(Effect::ReadOutput(stream));
        }
        Ok(())
    }

    pub(super) fn attach(&mut self, stream: u32, from: u64, limit: u64) -> Result<(), Violation> {
        if self.streams.output(stream).is_none() {
            self.must_be_known(stream)?;
            match self.streams.delivered_read(stream) {
                Some(total) if total == from => self.outbox.frame(Frame::End { stream, total }),
                _ => {
                    let failure = Failure::new(Failure::UNKNOWN_STREAM, "the stream is gone");
                    self.outbox.reset(stream, &failure);
                }
            }
            return Ok(());
        }
        if from > self.streams.output(stream).map_or(0, |output| output.journal.next()) {
            let failure = Failure::new("EINVAL", "the stream has not come so far");
            self.outbox.reset(stream, &failure);
            self.streams.change(stream, output::Output::release);
            return Ok(());
        }
        self.output_frame(stream, |output| {
            output.attach(from, limit);
            Ok(())
        })?;
        self.effects.push_back(Effect::ReadOutput(stream));
        Ok(())
    }

    pub(super) fn detach(&mut self, stream: u32) -> Result<(), Violation> {
        if self.streams.output(stream).is_none() {
            return self.must_be_known(stream);
        }
        self.nobody_reads(stream);
        Ok(())
    }

    /// Only the last bytes of a process's output are kept from now on; a file needs not be read at all.
    pub(super) fn nobody_reads(&mut self, stream: u32) {
        if self.streams.output(stream).is_some_and(|output| output.source == Source::File) {
            self.drop_output(stream);
            return;
        }
        self.streams.change(stream, |output| output.reader = Reader::Detached);
        self.effects.push_back(Effect::ReadOutput(stream));
        self.forget_settled(stream);
    }

    pub(super) fn reset_by_host(&mut self, stream: u32) -> Result<(), Violation> {
        if self.streams.output(stream).is_some() {
            self.drop_output(stream);
        } else if let Some(input) = self.streams.remove_input(stream) {
            self.effects.push_back(Effect::CloseInput(stream));
            if input.sink == Sink::File {
                let failure = Failure::new(Failure::RESET, "the stream that feeds the file was reset");
                self.write_finished(stream, Err(failure));
            }
        } else {
            return self.must_be_known(stream);
        }
        Ok(())
    }

    fn drop_output(&mut self, stream: u32) {
        if self.streams.remove_output(stream).is_some() {
            self.effects.push_back(Effect::CloseOutput(stream));
        }
    }

    fn forget_settled(&mut self, stream: u32) {
        if self.streams.forget_settled(stream) {
            self.effects.push_back(Effect::CloseOutput(stream));
        }
    }

    /// How many bytes the source of an output stream may give now; if none, [`Effect::ReadOutput`] comes later.
    pub fn room(&mut self, stream: u32) -> usize {
        self.streams.room(stream)
    }

    pub fn output_bytes(&mut self, stream: u32, bytes: &[u8]) {
        self.streams.append(stream, bytes);
    }

    pub fn output_chunk(&mut self, stream: u32, chunk: Vec<u8>) {
        self.streams.adopt(stream, chunk);
    }

    pub fn output_ended(&mut self, stream: u32) {
        self.streams.change(stream, |output| output.ended = true);
        self.forget_settled(stream);
    }

    /// The source of an output stream failed.
    pub fn output_failed(&mut self, stream: u32, failure: &Failure) {
        if self.streams.remove_output(stream).is_some() && self.is_live() {
            self.outbox.reset(stream, failure);
        }
        self.effects.push_back(Effect::CloseOutput(stream));
    }

    /// Bytes for a pipe that are not written yet.
    pub fn input_pending(&mut self, stream: u32) -> &[u8] {
        self.streams.input_mut(stream).map_or(&[], |input| input.pending())
    }

    /// Bytes for a file, which the caller writes all.
    pub fn take_input(&mut self, stream: u32) -> Vec<Vec<u8>> {
        self.streams.input_mut(stream).map(input::Input::take_pending).unwrap_or_default()
    }

    /// `count` bytes reached the pipe or file (0 to ask whether it is complete).
    pub fn input_written(&mut self, stream: u32, count: usize) -> InputState {
        let Some(input) = self.streams.input_mut(stream) else { return InputState::Complete };
        match input.sink {
            Sink::Stdin => input.wrote(count),
            Sink::File => input.wrote_taken(count),
        }
        let credit = input.credit_due();
        let complete = input.is_complete();
        let (sink, size) = (input.sink, input.written());
        if let (Some((consumed, limit)), Link::Live) = (credit, self.link) {
            self.outbox.frame(Frame::Credit { stream, consumed, limit });
        }
        if !complete {
            return InputState::Open;
        }
        self.streams.remove_input(stream);
        if sink == Sink::File {
            self.write_finished(stream, Ok(size));
        }
        InputState::Complete
    }

    /// The pipe or file takes no more bytes.
    pub fn input_failed(&mut self, stream: u32, failure: Failure) {
        let Some(input) = self.streams.remove_input(stream) else { return };
        if self.is_live() {
            self.outbox.reset(stream, &failure);
        }
        self.recent_resets.push_back((stream, failure.clone()));
        if self.recent_resets.len() > MAX_RECENT_RESETS {
            self.recent_resets.pop_front();
        }
        if input.sink == Sink::File {
            self.write_finished(stream, Err(failure));
        }
    }

    fn write_finished(&mut self, stream: u32, result: Result<u64, Failure>) {
        for ticket in self.closing.remove(&stream).unwrap_or_default() {
            self.answer_write_close(ticket, &result);
        }
        self.write_results.push_back((stream, result));
        if self.write_results.len() > MAX_WRITE_RESULTS {
            self.write_results.pop_front();
        }
    }
}

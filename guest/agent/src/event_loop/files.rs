//! Files that are read or written as streams, and the results of file calls.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use skerry_protocol::methods::{DirEntries, ReadValue};
use skerry_protocol::{Failure, Text};

use super::Agent;
use crate::core::{FileCall, InputState, Ticket};
use crate::files::FileValue;
use crate::pool::{Done, Job};

/// An open file at the agent's end of a stream.
pub(super) struct OpenFile {
    pub(super) file: Arc<OwnedFd>,
    /// A thread works on it.
    busy: bool,
}

impl Agent {
    pub(super) fn read_file(&mut self, stream: u32) {
        let Some(reader) = self.readers.get_mut(&stream).filter(|reader| !reader.busy) else { return };
        let room = self.core.room(stream);
        if room > 0 {
            reader.busy = true;
            self.pool.submit(Job::Read { stream, file: reader.file.clone(), room });
        }
    }

    pub(super) fn write_file(&mut self, stream: u32) {
        let Some(writer) = self.writers.get_mut(&stream).filter(|writer| !writer.busy) else { return };
        let chunks = self.core.take_input(stream);
        if !chunks.is_empty() {
            writer.busy = true;
            self.pool.submit(Job::Write { stream, file: writer.file.clone(), chunks });
        } else if self.core.input_written(stream, 0) == InputState::Complete {
            self.close_input(stream);
        }
    }

    pub(super) fn job_done(&mut self, done: Done) {
        match done {
            Done::Call(ticket, call, result) => self.call_done(ticket, call, result),
            Done::TrustInstalled(ticket, result) => self.core.trust_installed(ticket, result),
            Done::Read { stream, result } => {
                let Some(reader) = self.readers.get_mut(&stream) else { return };
                reader.busy = false;
                match result {
                    Ok(chunk) => {
                        self.core.output_chunk(stream, chunk.bytes);
                        if chunk.at_end {
                            self.core.output_ended(stream);
                            if let Some(reader) = self.readers.remove(&stream) {
                                self.pool.submit(Job::Close(reader.file));
                            }
                        }
                        self.read_file(stream);
                    }
                    Err(errno) => {
                        let failure = Failure::errno(errno.raw_os_error(), "read", &Text::from("the file"));
                        self.core.output_failed(stream, &failure);
                    }
                }
            }
            Done::Write { stream, result } => {
                let Some(writer) = self.writers.get_mut(&stream) else { return };
                writer.busy = false;
                match result {
                    Ok(count) if self.core.input_written(stream, count) == InputState::Open => {
                        self.write_file(stream);
                    }
                    Ok(_) => self.close_input(stream),
                    Err(errno) => {
                        let failure = Failure::errno(errno.raw_os_error(), "write", &Text::from("the file"));
                        self.core.input_failed(stream, failure);
                        self.close_input(stream);
                    }
                }
            }
        }
    }

    fn call_done(&mut self, ticket: Ticket, call: FileCall, result: Result<FileValue, Failure>) {
        self.core.file_call_over(&call);
        let value = match result {
            Ok(value) => value,
            Err(failure) => return self.core.fail(ticket, failure),
        };
        match value {
            FileValue::Nothing => self.core.answer(ticket, &Ok(())),
            FileValue::Data(data) => self.core.answer(ticket, &Ok(ReadValue::Inline { data: data.into() })),
            FileValue::Entries(entries) => self.core.answer(ticket, &Ok(DirEntries { entries })),
            FileValue::Stat(stat) => self.core.answer(ticket, &Ok(stat)),
            FileValue::Opened { file, size, head } => {
                let credit = if let FileCall::Read { credit, .. } = call { credit } else { 0 };
                let file = Arc::new(file);
                match self.core.read_opened(ticket, credit, size, head) {
                    Some(stream) => {
                        self.readers.insert(stream, OpenFile { file, busy: false });
                        self.read_file(stream);
                    }
                    None => self.pool.submit(Job::Close(file)),
                }
            }
            FileValue::OpenedForWriting(file) => {
                let file = Arc::new(file);
                match self.core.write_opened(ticket) {
                    Some(stream) => {
                        self.writers.insert(stream, OpenFile { file, busy: false });
                    }
                    None => self.pool.submit(Job::Close(file)),
                }
            }
        }
    }
}

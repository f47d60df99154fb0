//! QEMU's monitor (QMP, docs/interop/qmp-spec of QEMU): commands to it, and the events that it tells.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};

/// How long an answer may take. QEMU answers at once, unless the host has no time for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// QEMU does not answer as it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum MonitorError {
    /// It is gone, or takes too long.
    #[error("QEMU does not answer: {0}")]
    Host(#[from] io::Error),
    /// It says something that is no QMP.
    #[error("QEMU's answer makes no sense: {0}")]
    Format(#[from] serde_json::Error),
    /// It refuses.
    #[error("QEMU refuses '{command}': {why}")]
    Refused {
        /// What it was asked for.
        command: String,
        /// What it says.
        why: String,
    },
}

/// A connection to the monitor.
pub(super) struct Monitor {
    socket: BufReader<UnixStream>,
    /// The greeting was exchanged.
    is_ready: bool,
}

impl Monitor {
    /// A connection by `socket`, which QEMU need not have taken yet.
    pub(super) fn new(socket: UnixStream) -> Self {
        Self {
            socket: BufReader::new(socket),
            is_ready: false,
        }
    }

    /// Carries out `command`, and gives what it returns.
    ///
    /// # Errors
    ///
    /// [`MonitorError`], after some seconds if there is no answer.
    pub(super) fn execute(
        &mut self,
        command: &str,
        arguments: &Value,
    ) -> Result<Value, MonitorError> {
        self.socket.get_ref().set_read_timeout(Some(PATIENCE))?;
        self.prepare()?;
        self.ask(command, arguments)
    }

    /// What `command` of the monitor for humans prints.
    ///
    /// # Errors
    ///
    /// As for [`execute`](Self::execute).
    pub(super) fn print(&mut self, command: &str) -> Result<String, MonitorError> {
        let arguments = json!({ "command-line": command });
        let text = self.execute("human-monitor-command", &arguments)?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// Whether the guest has shut down by now. Events are told only to those who have exchanged the
    /// greeting, so this is the first question of who waits for that one.
    ///
    /// # Errors
    ///
    /// [`MonitorError`], as when QEMU has ended.
    pub(super) fn is_shut_down(&mut self) -> Result<bool, MonitorError> {
        self.prepare()?;
        let status = self.ask("query-status", &json!({}))?;
        Ok(status["status"] == "shutdown")
    }

    /// Waits for the next event; gives its name and what belongs to it.
    ///
    /// # Errors
    ///
    /// [`MonitorError`], as when QEMU has ended.
    pub(super) fn next_event(&mut self) -> Result<(String, Value), MonitorError> {
        self.prepare()?;
        loop {
            let mut message = self.receive()?;
            if let Some(name) = message["event"].as_str() {
                return Ok((name.to_owned(), message["data"].take()));
            }
        }
    }

    /// QEMU greets first, and wants to be told that it may take commands.
    fn prepare(&mut self) -> Result<(), MonitorError> {
        if !self.is_ready {
            self.ask("qmp_capabilities", &json!({}))?;
            self.is_ready = true;
        }
        Ok(())
    }

    fn ask(&mut self, command: &str, arguments: &Value) -> Result<Value, MonitorError> {
        let request = json!({ "execute": command, "arguments": arguments });
        self.socket
            .get_mut()
            .write_all(request.to_string().as_bytes())?;
        loop {
            let mut message = self.receive()?;
            if let Some(why) = message["error"]["desc"].as_str() {
                return Err(MonitorError::Refused {
                    command: command.to_owned(),
                    why: why.to_owned(),
                });
            }
            // All else are the greeting and events.
            if let Some(value) = message.get_mut("return") {
                return Ok(value.take());
            }
        }
    }

    fn receive(&mut self) -> Result<Value, MonitorError> {
        let mut line = String::new();
        loop {
            match self.socket.read_line(&mut line) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(_) => return Ok(serde_json::from_str(&line)?),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// A monitor whose QEMU says `says`.
    fn monitor(says: &str) -> (Monitor, UnixStream) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(says.as_bytes()).unwrap();
        (Monitor::new(ours), theirs)
    }

    const GREETING: &str = "{\"QMP\": {}}\r\n{\"return\": {}}\r\n";

    #[test]
    fn an_answer_is_told_from_events() {
        let says = "{\"event\": \"STOP\"}\r\n{\"return\": \"text\"}\r\n";
        let (mut monitor, mut qemu) = monitor(&format!("{GREETING}{says}"));
        assert_eq!(monitor.print("info registers").unwrap(), "text");
        drop(monitor);
        let mut asked = String::new();
        qemu.read_to_string(&mut asked).unwrap();
        assert!(
            asked.contains("\"command-line\":\"info registers\""),
            "{asked}"
        );
    }

    #[test]
    fn events_come_in_order() {
        let says = "{\"event\": \"A\", \"data\": {\"x\": 1}}\r\n{\"event\": \"B\"}\r\n";
        let (mut monitor, qemu) = monitor(&format!("{GREETING}{says}"));
        assert_eq!(monitor.next_event().unwrap(), ("A".into(), json!({"x": 1})));
        assert_eq!(monitor.next_event().unwrap().0, "B");
        drop(qemu);
        assert!(matches!(monitor.next_event(), Err(MonitorError::Host(_))));
    }

    #[test]
    fn an_end_before_the_greeting_is_noticed() {
        for (status, expected) in [("shutdown", true), ("running", false)] {
            let says = format!("{{\"return\": {{\"status\": \"{status}\"}}}}\r\n");
            let (mut monitor, _qemu) = monitor(&format!("{GREETING}{says}"));
            assert_eq!(monitor.is_shut_down().unwrap(), expected);
        }
    }

    #[test]
    fn errors_and_nonsense_are_told() {
        let says = "{\"error\": {\"class\": \"x\", \"desc\": \"no such thing\"}}\r\nnonsense\r\n";
        let (mut monitor, _qemu) = monitor(&format!("{GREETING}{says}"));
        let refused = monitor.execute("stop", &json!({})).unwrap_err();
        assert!(refused.to_string().contains("'stop': no such thing"));
        let nonsense = monitor.execute("stop", &json!({})).unwrap_err();
        assert!(matches!(nonsense, MonitorError::Format(_)));
    }
}

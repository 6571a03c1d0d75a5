//! A proxy in front of a swtpm, for the module and for libtss2. The proxy counts commands and
//! injects faults.

mod codes;

use super::ports::{Pair, listen};
use super::signature_answers::{flipped, shortened};
use super::tpm::Swtpm;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use std::{fmt, thread};

pub use codes::{answer, command};

/// A fault of a command or of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The proxy answers with this code. The TPM does not receive the command.
    Code(u32),
    /// The proxy closes the connection. The TPM does not receive the command.
    Drop,
    /// The TPM runs the command. The proxy closes the connection before the response.
    Lost,
    /// The TPM runs the command. The connection is closed after half of the answer.
    Half,
    /// The TPM runs the command. The answer has the right length but random content.
    Garbage,
    /// The TPM runs the signature. The proxy removes leading zeros of r and s.
    Shorten,
    /// The TPM runs the RSA signature. The proxy flips one bit of the signature.
    Flip,
    /// The command waits until [`Book::release`]. Then the TPM runs it.
    Stall,
    /// The command waits as for `Stall`, and the TPM runs no other command in the meantime.
    Occupy,
    /// The TPM is busy for this time before it runs the command.
    Delay(Duration),
}

/// The response of the proxy to the client.
pub enum Reply {
    Whole(Vec<u8>),
    /// The connection ends after these bytes.
    Cut(Vec<u8>),
    /// These bytes, one at a time.
    Dripped(Vec<u8>),
}

/// A function that alters the answer to a command with this code.
pub type Mutate = Box<dyn FnMut(u32, Vec<u8>) -> Reply + Send>;

struct Rule {
    code: u32,
    /// The number of commands with this code that pass before the fault.
    spared: u32,
    left: u32,
    fault: Fault,
}

impl Rule {
    /// Returns the fault for the next command with the code of this rule.
    fn met(&mut self) -> Option<Fault> {
        if self.spared > 0 {
            self.spared -= 1;
            return None;
        }
        self.left -= 1;
        Some(self.fault)
    }
}

#[derive(Default)]
struct State {
    seen: Vec<(u32, Option<u32>)>,
    /// The number of commands that earlier calls of [`Book::take`] returned.
    taken: usize,
    rules: Vec<Rule>,
    delay: Option<Duration>,
    stalled: u32,
    releases: u32,
    /// The number of commands without a response yet.
    under_way: u32,
    /// The bytes of commands and answers, if a test requested them.
    kept: Option<Vec<Vec<u8>>>,
    /// The alterations of answers, by command code.
    alterations: Vec<(u32, Alteration)>,
}

/// A function that makes another answer from a command and its answer.
type Alteration = Arc<dyn Fn(&[u8], Vec<u8>) -> Vec<u8> + Send + Sync>;

pub type Execute<'a> = &'a mut dyn FnMut(&[u8]) -> Vec<u8>;

/// An interposer: a function that answers a command. The function may let the TPM execute commands.
pub type Interposer = Box<dyn FnMut(&[u8], Execute) -> Vec<u8> + Send>;

/// The commands that a proxy saw, and the faults to inject.
pub struct Book {
    interposer: Mutex<Option<Interposer>>,
    upstream: Box<dyn Fn() -> io::Result<Box<dyn super::tpm::Stream>> + Send + Sync>,
    /// Serialises the commands, because swtpm serves one connection at a time.
    turn: Mutex<()>,
    mutate: Mutex<Option<Mutate>>,
    state: Mutex<State>,
    changed: Condvar,
}

/// TPM commands in order, each with its response code (`None` without answer).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Seen(pub Vec<(u32, Option<u32>)>);

impl Seen {
    pub fn total(&self) -> usize {
        self.0.len()
    }

    /// Returns the codes of the commands, in order.
    pub fn codes(&self) -> Vec<u32> {
        self.0.iter().map(|(code, _)| *code).collect()
    }

    /// Returns the commands without those that the TPM asked for again (TPM_RC_RETRY). A TPM asks
    /// once, at its first use of a key that is not noDA.
    pub fn without_retries(mut self) -> Seen {
        self.0.retain(|(_, answer)| *answer != Some(answer::RETRY));
        self
    }

    /// Returns the number of commands with this code that were answered with `answer`.
    pub fn answered(&self, code: u32, answer: u32) -> usize {
        self.0
            .iter()
            .filter(|seen| **seen == (code, Some(answer)))
            .count()
    }

    pub fn of(&self, code: u32) -> usize {
        self.0.iter().filter(|seen| seen.0 == code).count()
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts = BTreeMap::new();
        for (code, answer) in &self.0 {
            let answer = answer.map_or("none".to_owned(), |answer| format!("{answer:#x}"));
            *counts.entry(format!("{code:#x} -> {answer}")).or_insert(0) += 1;
        }
        write!(to, "{} commands {counts:?}", self.0.len())
    }
}

impl Book {
    pub fn new(tpm: &Swtpm) -> Arc<Book> {
        let place = tpm.place().clone();
        Arc::new(Book {
            interposer: Mutex::default(),
            upstream: Box::new(move || place.connect()),
            turn: Mutex::default(),
            mutate: Mutex::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// Returns the commands since the last call of `take`.
    pub fn take(&self) -> Seen {
        let mut state = self.state.lock().unwrap();
        state.taken += state.seen.len();
        Seen(std::mem::take(&mut state.seen))
    }

    /// Records the bytes of commands and answers from now on, for [`Book::wire`].
    pub fn keep(&self) {
        self.state.lock().unwrap().kept = Some(Vec::new());
    }

    /// Returns the recorded commands. Each is followed by its answer, if there was an answer.
    pub fn wire(&self) -> Vec<Vec<u8>> {
        let kept = self.state.lock().unwrap().kept.take();
        kept.expect("kept")
    }

    /// Sets the interposer that answers every command from now on. `None` removes it.
    pub fn interpose(&self, interposer: Option<Interposer>) {
        *self.interposer.lock().unwrap() = interposer;
    }

    /// Sets the function that alters each answer of the TPM from now on. `None` removes it.
    pub fn mutate(&self, mutate: Option<Mutate>) {
        *self.mutate.lock().unwrap() = mutate;
    }

    pub fn delay_each(&self, delay: Option<Duration>) {
        self.state.lock().unwrap().delay = delay;
    }

    /// Injects a fault into the next command with this code.
    pub fn break_next(&self, code: u32, fault: Fault) {
        self.break_times(code, fault, 1);
    }

    /// Injects a fault into the next `times` commands with this code.
    pub fn break_times(&self, code: u32, fault: Fault, times: u32) {
        self.rule(code, 0, times, fault);
    }

    /// Injects a fault into one command with this code, after `spared` other commands with this
    /// code.
    pub fn break_after(&self, code: u32, spared: u32, fault: Fault) {
        self.rule(code, spared, 1, fault);
    }

    fn rule(&self, code: u32, spared: u32, left: u32, fault: Fault) {
        self.state.lock().unwrap().rules.push(Rule {
            code,
            spared,
            left,
            fault,
        });
    }

    /// Sets a function that alters successful answers to commands with this code from now on.
    pub fn alter(
        &self,
        code: u32,
        alter: impl Fn(&[u8], Vec<u8>) -> Vec<u8> + Send + Sync + 'static,
    ) {
        let mut state = self.state.lock().unwrap();
        state.alterations.push((code, Arc::new(alter)));
    }

    /// Removes pending faults, and lets stalled commands run.
    pub fn heal(&self) {
        let mut state = self.state.lock().unwrap();
        state.rules.clear();
        state.alterations.clear();
        drop(state);
        self.release();
    }

    /// Returns true when all requested faults have occurred.
    pub fn all_broken(&self) -> bool {
        self.state
            .lock()
            .unwrap()
            .rules
            .iter()
            .all(|rule| rule.left == 0)
    }

    /// Waits until a command is stalled.
    pub fn await_stall(&self) {
        let state = self.state.lock().unwrap();
        let limit = Duration::from_secs(60);
        let waited = self
            .changed
            .wait_timeout_while(state, limit, |state| state.stalled == 0);
        assert!(
            !waited.unwrap().1.timed_out(),
            "no command was stalled within {limit:?}"
        );
    }

    /// Lets stalled commands run.
    pub fn release(&self) {
        let mut state = self.state.lock().unwrap();
        state.releases += 1;
        state.stalled = 0;
        self.changed.notify_all();
    }

    /// Waits until no command is under way, even a command whose client is gone.
    pub fn await_quiet(&self) {
        let state = self.state.lock().unwrap();
        let busy = |state: &mut State| state.under_way > 0;
        drop(self.changed.wait_while(state, busy).unwrap());
    }

    /// Processes one command of the client.
    pub fn exchange(&self, command: &[u8]) -> Reply {
        self.state.lock().unwrap().under_way += 1;
        let reply = self.exchanged(command);
        self.state.lock().unwrap().under_way -= 1;
        self.changed.notify_all();
        reply
    }

    fn exchanged(&self, command: &[u8]) -> Reply {
        let code = number_at(command, 6);
        let (at, fault) = self.note(code);
        let reply = self.altered(command, code, self.reply(command, fault));
        if let Reply::Whole(answer) = &reply {
            let mut state = self.state.lock().unwrap();
            if let Some(kept) = &mut state.kept {
                kept.extend([command.to_vec(), answer.clone()]);
            }
            let at = at.checked_sub(state.taken);
            if let Some(seen) = at.and_then(|at| state.seen.get_mut(at)) {
                seen.1 = Some(number_at(answer, 6));
            }
        }
        match (reply, &mut *self.mutate.lock().unwrap()) {
            (Reply::Whole(answer), Some(mutate)) => mutate(code, answer),
            (reply, _) => reply,
        }
    }

    fn altered(&self, command: &[u8], code: u32, reply: Reply) -> Reply {
        let Reply::Whole(mut answer) = reply else {
            return reply;
        };
        let alterations = self.state.lock().unwrap().alterations.clone();
        for (_, alter) in alterations.iter().filter(|(one, _)| *one == code) {
            if number_at(&answer, 6) == 0 {
                answer = alter(command, answer);
                let size = u32::try_from(answer.len()).expect("fits");
                answer[2..6].copy_from_slice(&size.to_be_bytes());
            }
        }
        Reply::Whole(answer)
    }

    fn reply(&self, command: &[u8], fault: Option<Fault>) -> Reply {
        match fault {
            Some(Fault::Code(code)) => {
                let mut answer = vec![0x80, 1, 0, 0, 0, 10];
                answer.extend(code.to_be_bytes());
                return Reply::Whole(answer);
            }
            Some(Fault::Drop) => return Reply::Cut(Vec::new()),
            Some(Fault::Stall) => self.stall(),
            _ => {}
        }
        let Ok(answer) = self.answered(command, fault) else {
            return Reply::Cut(Vec::new());
        };
        match fault {
            Some(Fault::Lost) => Reply::Cut(Vec::new()),
            Some(Fault::Half) => Reply::Cut(answer[..answer.len() / 2].to_vec()),
            Some(Fault::Garbage) => Reply::Whole(answer.iter().map(|byte| byte ^ 0xA5).collect()),
            Some(Fault::Flip) => Reply::Whole(flipped(answer)),
            Some(Fault::Shorten) => Reply::Whole(shortened(&answer)),
            _ => Reply::Whole(answer),
        }
    }

    /// Records a command. Returns its index and its fault.
    fn note(&self, code: u32) -> (usize, Option<Fault>) {
        let mut state = self.state.lock().unwrap();
        state.seen.push((code, None));
        let at = state.taken + state.seen.len() - 1;
        let of = |rule: &&mut Rule| rule.code == code && rule.left > 0;
        let met = state.rules.iter_mut().find(of).and_then(Rule::met);
        (at, met.or(state.delay.map(Fault::Delay)))
    }

    fn stall(&self) {
        let mut state = self.state.lock().unwrap();
        state.stalled += 1;
        self.changed.notify_all();
        let releases = state.releases;
        drop(
            self.changed
                .wait_while(state, |state| state.releases == releases)
                .unwrap(),
        );
    }

    /// Returns the answer of the interposer, or of the TPM if there is no interposer.
    fn answered(&self, command: &[u8], fault: Option<Fault>) -> io::Result<Vec<u8>> {
        let mut interposer = self.interposer.lock().unwrap();
        match &mut *interposer {
            Some(interposer) => {
                let mut execute = |command: &[u8]| self.run(command, fault).unwrap_or_default();
                let answer = interposer(command, &mut execute);
                match answer.len() {
                    10.. => Ok(answer),
                    _ => Err(io::ErrorKind::UnexpectedEof.into()),
                }
            }
            None => {
                drop(interposer);
                self.run(command, fault)
            }
        }
    }

    fn run(&self, command: &[u8], fault: Option<Fault>) -> io::Result<Vec<u8>> {
        let _turn = self.turn.lock().unwrap();
        match fault {
            Some(Fault::Occupy) => self.stall(),
            Some(Fault::Delay(time)) => thread::sleep(time),
            _ => {}
        }
        let mut tpm = (self.upstream)()?;
        let sent = tpm.write_all(command);
        let answer = sent.and_then(|()| read_packet(&mut tpm));
        tpm.end();
        answer
    }
}

/// Reads one TPM command or answer. The header gives its size.
pub fn read_packet(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut packet = vec![0; 10];
    from.read_exact(&mut packet)?;
    let size = number_at(&packet, 2) as usize;
    if !(10..=65536).contains(&size) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    packet.resize(size, 0);
    from.read_exact(&mut packet[10..])?;
    Ok(packet)
}

/// Writes one byte at a time, and yields the processor after each byte.
pub fn drip(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    for byte in bytes {
        to.write_all(&[*byte])?;
        thread::yield_now();
    }
    Ok(())
}

/// Serves the clients of `listener` until `ended`, each in a thread.
pub fn serve<F>(listener: TcpListener, ended: &Arc<AtomicBool>, client: F)
where
    F: Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static,
{
    let (ended, client) = (Arc::clone(ended), Arc::new(client));
    thread::spawn(move || {
        for stream in listener.incoming() {
            if ended.load(Ordering::SeqCst) {
                return;
            }
            let Ok(stream) = stream else { continue };
            let client = Arc::clone(&client);
            thread::spawn(move || {
                stream.set_nodelay(true).ok();
                // A child that was forked in the meantime has a copy of the descriptor, so closing
                // is not enough.
                let copy = stream.try_clone();
                client(stream).ok();
                copy.and_then(|copy| copy.shutdown(Shutdown::Both)).ok();
            });
        }
    });
}

/// A proxy with swtpm's protocol: commands on the first port, control on the second port.
pub struct Proxy {
    book: Arc<Book>,
    ports: Pair,
    ended: Arc<AtomicBool>,
}

impl Proxy {
    pub fn new(tpm: &Swtpm) -> Proxy {
        let (book, ended) = (Book::new(tpm), Arc::new(AtomicBool::new(false)));
        let (ports, commands, control) = listeners();
        let served = Arc::clone(&book);
        serve(commands, &ended, move |mut client| {
            loop {
                match served.exchange(&read_packet(&mut client)?) {
                    Reply::Whole(answer) => client.write_all(&answer)?,
                    Reply::Cut(bytes) => return client.write_all(&bytes),
                    Reply::Dripped(bytes) => drip(&mut client, &bytes)?,
                }
            }
        });
        let port = tpm.control_port();
        serve(control, &ended, move |client| pass_on(client, port));
        Proxy { book, ports, ended }
    }

    /// Returns the counts and faults.
    pub fn book(&self) -> &Book {
        &self.book
    }

    pub fn tcti(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.ports.first)
    }

    /// Returns the port for commands.
    pub fn port(&self) -> u16 {
        self.ports.first
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        self.book.release();
        for port in [self.ports.first, self.ports.first + 1] {
            TcpStream::connect(("127.0.0.1", port)).ok(); // wakes the accepting thread
        }
    }
}

pub fn listeners() -> (Pair, TcpListener, TcpListener) {
    for _ in 0..20 {
        let ports = Pair::claim();
        if let (Some(first), Some(second)) = (listen(ports.first), listen(ports.first + 1)) {
            return (ports, first, second);
        }
    }
    panic!("no free pair of ports");
}

/// Copies bytes between `client` and `port` until one of them ends.
fn pass_on(client: TcpStream, port: u16) -> io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", port))?;
    let (mut from, mut to) = (server.try_clone()?, client.try_clone()?);
    let back = thread::spawn(move || {
        io::copy(&mut from, &mut to).ok();
        to.shutdown(Shutdown::Write).ok();
    });
    io::copy(&mut &client, &mut &server).ok();
    server.shutdown(Shutdown::Write).ok();
    back.join().ok();
    Ok(())
}

pub fn number_at(packet: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(packet[at..at + 4].try_into().expect("four bytes"))
}

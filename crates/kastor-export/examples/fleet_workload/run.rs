//! The fleet's run: in three phases, the collector being away during the second.

use std::{
    fs,
    io::{BufRead as _, BufReader, Lines, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Instant,
};

use serde_json::{Value, json};

use super::{round, sink::Sink};

const MEMBERS: u64 = 64;
/// Of these, how many are killed while the collector is away; the others inherit what they left on disk.
const KILLED: u64 = 4;
/// What a member does in a phase: events, of these in one go, and milliseconds between two such goes.
const USUAL: (u64, u64, u64) = (400, 10, 100);
/// Without a spool, much more than a member holds has to be recorded while the collector is away.
const FLOOD: (u64, u64, u64) = (3_000, 50, 50);
/// Events that a request of a member holds at most, with room to spare.
const REQUEST_EVENTS: u64 = 200;

/// See the module.
pub(crate) fn run(has_spool: bool, url: &str, sink: u16, folder: &Path) {
    let spool = folder.join("spool");
    let mut sink = Sink::on(sink);
    let mut members: Vec<Member> =
        (0..MEMBERS).map(|number| Member::start(number, url, has_spool.then_some(spool.as_path()))).collect();

    // 1. All is well.
    let began = Instant::now();
    all(&mut members, USUAL);
    let seconds = began.elapsed().as_secs_f64();

    // 2. The collector goes while all of them are sending, and stays away until they have recorded their part.
    let away = if has_spool { USUAL } else { FLOOD };
    members.iter_mut().for_each(|member| member.emit(away));
    ask("stop");
    members.iter_mut().for_each(Member::hear_emitted);
    let mut expected = MEMBERS * (USUAL.0 + away.0);
    let mut on_disk = json!(null);
    if has_spool {
        members.iter_mut().for_each(Member::persist);
        let (files, bytes) = size_of(&spool);
        // Segments go when all in them is delivered and they are full: nothing has gone yet.
        on_disk = json!({ "events": expected, "bytes": bytes, "files": files,
            "bytes_per_event": round(bytes as f64 / expected as f64) });
        for member in members.drain(..KILLED as usize) {
            member.kill();
        }
    }
    ask("start");

    // 3. It is back.
    let back = Instant::now();
    let before = sink.distinct();
    all(&mut members, USUAL);
    expected += members.len() as u64 * USUAL.0;
    let has_come = has_spool && sink.wait_for(expected);
    let drained = (sink.distinct() - before) as f64 / back.elapsed().as_secs_f64();
    let ends: Vec<Value> = members.into_iter().map(Member::end).collect();
    let sum = |field: &str| ends.iter().map(|end| end[field].as_u64().expect(field)).sum::<u64>();

    // What the members say adds up, and is what came.
    for (number, end) in ends.iter().enumerate() {
        let of = |field: &str| end[field].as_u64().expect(field);
        let accounted = of("delivered") + of("dropped") + of("queued") + of("spooled");
        assert_eq!(of("emitted"), accounted, "member {number}: {end}");
        assert_eq!((&end["is_complete"], of("queued"), of("spooled")), (&json!(true), 0, 0), "member {number}: {end}");
    }
    if has_spool {
        let missing = (0..MEMBERS).flat_map(|member| {
            let events = USUAL.0 + away.0 + if member < KILLED { 0 } else { USUAL.0 };
            (member << 32..).take(events as usize)
        });
        let missing: Vec<u64> = missing.filter(|number| !sink.has(*number)).collect();
        assert!(has_come && missing.is_empty(), "{} of {expected} are lost: {missing:?}", missing.len());
        assert_eq!((sum("dropped"), sink.distinct()), (0, expected));
    } else {
        assert!(sink.wait_for(sum("delivered")), "{} of {} came", sink.distinct(), sum("delivered"));
        assert!(sum("dropped") > 0, "the outage was too short to show anything");
        assert_eq!(sum("emitted"), expected);
        assert_eq!(sink.distinct(), sum("delivered"), "what came is not what was counted as delivered");
        assert_eq!(sum("dropped"), sum("queue_full"));
    }
    // A request whose answer was lost is sent again: at most one for each member that lost its collector, and one for
    // each that was killed.
    let allowed = if has_spool { (MEMBERS + KILLED) * REQUEST_EVENTS } else { MEMBERS * REQUEST_EVENTS };
    assert!(sink.again() <= allowed, "{} came twice, {allowed} may", sink.again());

    let most = |field: &str| ends.iter().map(|end| end[field].as_u64().expect(field)).max();
    println!(
        "{}",
        json!({ "members": MEMBERS, "killed": if has_spool { KILLED } else { 0 }, "emitted": expected,
            "came": sink.distinct(), "came_again": sink.again(), "dropped_and_counted": sum("dropped"),
            "emitted_per_second": round((MEMBERS * USUAL.0) as f64 / seconds),
            "came_per_second_after_the_outage": round(drained),
            "sender_cpu_us_per_event": round(sum("cpu_ns") as f64 / 1e3 / sum("emitted") as f64),
            "sender_most_memory_kib": most("most_memory_kib"), "spool": on_disk })
    );
}

fn all(members: &mut [Member], load: (u64, u64, u64)) {
    members.iter_mut().for_each(|member| member.emit(load));
    members.iter_mut().for_each(Member::hear_emitted);
}

/// Asks whoever started this to do something to the collector, and waits until it is done.
fn ask(what: &str) {
    println!("{what}");
    let mut answer = String::new();
    assert!(std::io::stdin().read_line(&mut answer).is_ok_and(|length| length > 0), "nobody answered {what}");
}

/// Files and bytes in a folder.
fn size_of(folder: &Path) -> (u64, u64) {
    let entries = fs::read_dir(folder).expect("a folder").filter_map(|entry| entry.ok()?.metadata().ok());
    entries.fold((0, 0), |(files, bytes), file| (files + 1, bytes + file.len()))
}

/// One process of the fleet, ended when this is dropped.
struct Member {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    emitted: u64,
}

impl Member {
    fn start(number: u64, url: &str, spool: Option<&Path>) -> Self {
        let mut program = Command::new(std::env::current_exe().expect("this program"));
        program.args(["member", &number.to_string(), url]);
        program.arg(spool.unwrap_or_else(|| Path::new("-")));
        let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a process");
        let orders = child.stdin.take().expect("a pipe");
        let answers = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { child, orders, answers, emitted: 0 }
    }

    fn emit(&mut self, (events, burst, pause_ms): (u64, u64, u64)) {
        self.emitted += events;
        self.order(&format!("emit {events} {burst} {pause_ms}"));
    }

    fn hear_emitted(&mut self) {
        let expected = format!("emitted {}", self.emitted);
        assert_eq!(self.answer(), expected);
    }

    fn persist(&mut self) {
        self.order("persist");
        let expected = format!("kept {}", self.emitted);
        assert_eq!(self.answer(), expected);
    }

    fn kill(mut self) {
        self.child.kill().expect("a process of ours");
    }

    fn end(mut self) -> Value {
        self.order("end");
        let said = self.answer();
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error} in {said}"))
    }

    fn order(&mut self, line: &str) {
        writeln!(self.orders, "{line}").expect("a member that listens");
    }

    fn answer(&mut self) -> String {
        self.answers.next().expect("a member that answers").expect("text")
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // One that has said its last has a moment to end by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! The headers of W3C Trace Context of any text.

use kastor::{Carrier, Error, TraceParent, TraceState};

/// Any text: its first line as `traceparent`, the others as `tracestate`.
pub fn trace_context(text: &str) {
    let mut lines = text.split('\n');
    let header = lines.next().unwrap_or_default();
    let states: Vec<&str> = lines.collect();
    let parent = TraceParent::parse(header);
    if let Ok(parent) = &parent {
        assert!(parent.trace_id() != 0 && parent.parent_id() != 0);
        let again = parent.to_string();
        assert_eq!(TraceParent::parse(&again).ok().as_ref(), Some(parent), "{again}");
        let version = header.trim_matches([' ', '\t']);
        assert!(!version.starts_with("ff") && again.get(3..52) == version.get(3..52), "{header:?} read as {again}");
        drop(Carrier::from_trace_parent(parent).attach());
    }
    for header in std::iter::once(header).chain(states.iter().copied()) {
        look_at(TraceState::parse(header));
    }
    look_at(TraceState::parse_lines(states.iter().copied()));
    let both = TraceParent::parse_with_state(header, states.iter().copied());
    assert_eq!(both.is_ok(), parent.is_ok());

    // A member of any form: it is put in front, or the state is as it was.
    let mut state = TraceState::parse_lines(states.iter().copied()).unwrap_or_default();
    let (key, value) = header.split_once('=').unwrap_or((header, ""));
    let before = state.clone();
    match state.insert(key, value) {
        Ok(()) => assert_eq!(state.iter().next(), Some((key, value))),
        Err(_) => assert_eq!(state, before),
    }
    look_at(Ok(state));
}

/// What was taken keeps the rules, and is read again as it is written.
fn look_at(state: Result<TraceState, Error>) {
    let state = match state {
        Ok(state) => state,
        Err(error) => return assert!(!error.to_string().chars().any(char::is_control), "{error}"),
    };
    assert!(state.len() <= TraceState::MAX_MEMBERS);
    assert_eq!(state.is_empty(), state.iter().next().is_none());
    for (at, (key, value)) in state.iter().enumerate() {
        assert!((1..=256).contains(&key.len()) && (1..=256).contains(&value.len()));
        assert!(state.iter().take(at).all(|(earlier, _)| earlier != key), "{key} is there twice");
        assert_eq!(state.get(key), Some(value));
    }
    assert_eq!(TraceState::parse(&state.to_string()).ok().as_ref(), Some(&state));
    for bytes in [0, 512, 1024, usize::MAX] {
        let header = state.to_header(bytes);
        assert!(header.len() <= bytes.max(TraceState::MIN_HEADER_BYTES));
        assert!(TraceState::parse(&header).is_ok_and(|read| read.len() <= state.len()), "{header}");
    }
}

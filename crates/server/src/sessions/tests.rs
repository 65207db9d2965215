//! Places of requests, bounds, and the ends of sessions.

use super::*;

fn open(sessions: &Sessions, id: &str, streaming: bool, timeout: Option<f64>) {
    let opened = sessions.open(OpenSessionRequest {
        capacity_of_str_len: 1000,
        session_id: Some(id.to_owned()),
        streaming: Some(streaming),
        timeout,
    });
    assert_eq!(opened.as_deref(), Ok(id));
}

fn after(rid: &str) -> SessionParams {
    SessionParams { rid: Some(rid.to_owned()), ..SessionParams::default() }
}

/// The whole prompt of a request that runs from here on.
fn begin(
    sessions: &Arc<Sessions>,
    params: &SessionParams,
    rid: &str,
    input: &[TokenId],
) -> Result<Begun, SessionError> {
    sessions.begin(("s", params), &Rid::new(rid), input.to_vec(), Some(1))
}

/// The whole prompt of a request that has ended with this completion.
fn run(
    sessions: &Arc<Sessions>,
    params: &SessionParams,
    (rid, input, output): (&str, &[TokenId], &[TokenId]),
) -> Result<Vec<TokenId>, SessionError> {
    let Begun { mut turn, input_ids, .. } = begin(sessions, params, rid, input)?;
    output.iter().for_each(|&token| turn.push(&[token]));
    turn.end(true);
    Ok(input_ids)
}

fn session(streaming: bool) -> Arc<Sessions> {
    let sessions = Arc::default();
    open(&sessions, "s", streaming, None);
    sessions
}

#[test]
fn requests_go_on_from_any_that_came_before() {
    let sessions = session(false);
    let first = run(&sessions, &SessionParams::default(), ("a", &[1, 10, 11], &[20, 21]));
    assert_eq!(first, Ok(vec![1, 10, 11]));
    assert_eq!(
        run(&sessions, &after("a"), ("b", &[1, 12], &[22])),
        Ok(vec![1, 10, 11, 20, 21, 12]),
        "what begins a text is not in the middle of one"
    );
    assert_eq!(run(&sessions, &after("a"), ("c", &[13], &[])), Ok(vec![1, 10, 11, 20, 21, 13]));
    let cut = |offset| SessionParams { offset: Some(offset), ..after("b") };
    assert_eq!(run(&sessions, &cut(2), ("d", &[14], &[])), Ok(vec![1, 10, 14]));
    assert_eq!(run(&sessions, &cut(-4), ("e", &[14], &[])), Ok(vec![1, 10, 11, 14]));
    assert_eq!(run(&sessions, &cut(99), ("f", &[], &[])), Ok(vec![1, 10, 11, 20, 21, 12, 22]));
    assert_eq!(run(&sessions, &cut(-99), ("g", &[14], &[])), Ok(vec![14]));
    assert_eq!(run(&sessions, &cut(-99), ("h", &[], &[])), Err(SessionError::Empty));
    let again = SessionParams { drop_previous_output: Some(true), ..after("b") };
    assert_eq!(run(&sessions, &again, ("i", &[15], &[])), Ok(vec![1, 10, 11, 20, 21, 12, 15]));
    assert_eq!(run(&sessions, &after("i"), ("j", &[16], &[])).unwrap()[6..], [15, 16]);
    assert_eq!(run(&sessions, &after("z"), ("k", &[1], &[])), Err(SessionError::NoRequest));
    // A name that comes again is the latest's; what went on from the other still does.
    assert_eq!(run(&sessions, &after("a"), ("a", &[17], &[23])), Ok(vec![1, 10, 11, 20, 21, 17]));
    assert_eq!(run(&sessions, &after("b"), ("l", &[], &[])).unwrap()[..5], [1, 10, 11, 20, 21]);
    assert_eq!(run(&sessions, &after("a"), ("m", &[], &[])).unwrap()[5..], [17, 23]);
}

#[test]
fn what_is_replaced_is_gone() {
    let sessions = session(false);
    run(&sessions, &SessionParams::default(), ("a", &[10], &[20])).unwrap();
    run(&sessions, &after("a"), ("b", &[11], &[21])).unwrap();
    let running = begin(&sessions, &after("b"), "c", &[12]).unwrap();
    assert_eq!(run(&sessions, &after("c"), ("d", &[1], &[])), Err(SessionError::Unfinished));
    let replace = |rid: Option<&str>| SessionParams {
        rid: rid.map(str::to_owned),
        replace: Some(true),
        ..SessionParams::default()
    };
    let begun = begin(&sessions, &replace(Some("a")), "e", &[13]).unwrap();
    assert_eq!((begun.input_ids, begun.replaced), (vec![10, 20, 13], vec![Rid::new("c")]));
    assert_eq!(run(&sessions, &after("b"), ("f", &[1], &[])), Err(SessionError::NoRequest));
    // Whoever is replaced may still have something to say.
    running.turn.push(&[22]);
    drop(running);
    // One that runs is cut where it is.
    begun.turn.push(&[23]);
    let next = begin(&sessions, &replace(Some("e")), "g", &[14]).unwrap();
    assert_eq!((next.input_ids, next.replaced), (vec![10, 20, 13, 23, 14], vec![Rid::new("e")]));
    begun.turn.push(&[24]);
    let mut next = next.turn;
    next.end(false);
    assert_eq!(run(&sessions, &after("g"), ("h", &[], &[])), Ok(vec![10, 20, 13, 23, 14]));
    let all = begin(&sessions, &replace(None), "i", &[15]).unwrap();
    assert_eq!((all.input_ids, all.replaced), (vec![15], vec![Rid::new("e")]));
    assert_eq!(run(&sessions, &after("a"), ("j", &[1], &[])), Err(SessionError::NoRequest));
}

#[test]
fn a_streaming_session_goes_on_from_its_last_success() {
    let sessions = session(true);
    let none = SessionParams::default();
    assert_eq!(run(&sessions, &none, ("a", &[1, 10], &[20])), Ok(vec![1, 10]));
    assert_eq!(run(&sessions, &none, ("b", &[1, 11], &[21])), Ok(vec![1, 10, 20, 11]));
    let begun = begin(&sessions, &none, "c", &[12]).unwrap();
    assert_eq!(run(&sessions, &none, ("d", &[13], &[])), Err(SessionError::Busy));
    begun.turn.push(&[22]);
    let mut turn = begun.turn;
    turn.end(false);
    // A request that never began leaves no trace either.
    drop(begin(&sessions, &none, "e", &[14]).unwrap());
    assert_eq!(run(&sessions, &none, ("f", &[15], &[])), Ok(vec![1, 10, 20, 11, 21, 15]));
    for (params, name) in [
        (SessionParams { offset: Some(1), ..none.clone() }, "offset"),
        (SessionParams { replace: Some(true), ..none.clone() }, "replace"),
        (
            SessionParams { drop_previous_output: Some(true), ..none.clone() },
            "drop_previous_output",
        ),
    ] {
        let refused = run(&sessions, &params, ("g", &[1], &[]));
        assert_eq!(refused, Err(SessionError::OnlyAppends(name)));
    }
    let held = num_tokens(&sessions.open_ones());
    assert_eq!(held, 6 + "f".len() + 64, "the one request has all tokens");
}

#[test]
fn sessions_end_when_they_are_closed_or_their_time_is_over() {
    let sessions: Arc<Sessions> = Arc::default();
    open(&sessions, "s", false, Some(0.0));
    let begun = begin(&sessions, &SessionParams::default(), "a", &[1]);
    assert_eq!(begun.unwrap_err(), SessionError::NoSession("s".to_owned()));
    open(&sessions, "s", false, Some(3600.0));
    let twice = OpenSessionRequest {
        capacity_of_str_len: 0,
        session_id: Some("s".to_owned()),
        streaming: None,
        timeout: None,
    };
    assert_eq!(sessions.open(twice.clone()), Err(SessionError::IsOpen));
    let begun = begin(&sessions, &SessionParams::default(), "a", &[1]).unwrap();
    assert!(sessions.close("s") && !sessions.close("s"));
    begun.turn.push(&[2]);
    drop(begun);
    for timeout in [-1.0, f64::NAN, 1e300] {
        let bad = OpenSessionRequest { timeout: Some(timeout), ..twice.clone() };
        assert!(matches!(sessions.open(bad), Err(SessionError::Timeout(_))));
    }
}

#[test]
fn there_are_only_so_many_sessions_and_tokens() {
    let sessions = session(false);
    let busy = begin(&sessions, &SessionParams::default(), "a", &[1]).unwrap();
    for i in 0..MAX_SESSIONS {
        open(&sessions, &i.to_string(), false, None);
    }
    let ids: Vec<bool> =
        ["s", "0", "1"].iter().map(|&id| sessions.open_ones().contains_key(id)).collect();
    assert_eq!(ids, [true, false, true], "the oldest that is idle has gone");
    let half = vec![7; MAX_TOKENS / 2];
    for id in ["1", "2"] {
        let begun =
            sessions.begin((id, &SessionParams::default()), &Rid::new("b"), half.clone(), None);
        begun.unwrap().turn.end(true);
    }
    let open = sessions.open_ones();
    assert!(!open.contains_key("1") && num_tokens(&open) < MAX_TOKENS);
    drop(open);
    let many = [half.as_slice(), half.as_slice(), &[7]].concat();
    let refused = begin(&sessions, &SessionParams::default(), "c", &many);
    assert_eq!(refused.unwrap_err(), SessionError::Full);
    assert_eq!(
        num_tokens(&sessions.open_ones()),
        1 + "a".len() + 64,
        "what is refused is not kept"
    );
    drop(busy);
}

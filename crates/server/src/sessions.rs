//! Sessions: requests whose tokens are remembered, so that the next one brings only what is new.
//!
//! A session is a tree of requests: each goes on from one that came before, or from nothing.
//! Only token ids are kept; their K/V are in the radix tree as those of any request. Bounded
//! in number and in tokens: then those go that nobody has used for the longest time.
//!
//! Upstream: `sglang/srt/session/session_controller.py`.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use protocol::native::{OpenSessionRequest, SessionParams};
use thiserror::Error;
use types::{Rid, TokenId};
use uuid::Uuid;

mod tree;

use tree::{Base, Tree};

/// Most sessions at once.
const MAX_SESSIONS: usize = 1024;
/// Most tokens of all sessions together.
const MAX_TOKENS: usize = 16 << 20;

/// Why a request cannot be part of a session. The texts are upstream's where it has the error.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum SessionError {
    #[error("Failed to open the session. Check if a session with the same id is still open.")]
    IsOpen,
    #[error("timeout must be a number of seconds, got {0}.")]
    Timeout(String),
    #[error("Invalid request: session id {0} does not exist")]
    NoSession(String),
    #[error("Invalid request session id")]
    NoRequest,
    #[error("Session request is appending to a request that hasn't finished.")]
    Unfinished,
    #[error("Streaming session already has an active request.")]
    Busy,
    #[error("Streaming sessions do not support {0}.")]
    OnlyAppends(&'static str),
    #[error("A session request must contain input tokens after restoring history.")]
    Empty,
    #[error("The sessions hold as many tokens as they may ({MAX_TOKENS}).")]
    Full,
}

/// All that are open.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<HashMap<String, Session>>);

#[derive(Debug)]
struct Session {
    tree: Tree,
    /// Appends only: the tree has one request, the last that succeeded, and one that runs.
    is_streaming: bool,
    timeout: Option<Duration>,
    last_active: Instant,
}

/// A request that has its place in a session.
#[derive(Debug)]
pub(crate) struct Turn {
    sessions: Arc<Sessions>,
    session: String,
    /// Its place in the tree.
    turn: u64,
    /// How it ended is known.
    has_ended: bool,
}

/// What becomes of a request in a session.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) turn: Turn,
    /// The whole prompt.
    pub(crate) input_ids: Vec<TokenId>,
    /// Requests that run and have no place any more.
    pub(crate) replaced: Vec<Rid>,
}

impl Sessions {
    /// # Errors
    /// The name is taken, or the timeout is no time.
    pub(crate) fn open(&self, request: OpenSessionRequest) -> Result<String, SessionError> {
        let as_timeout = |seconds: f64| {
            let timeout = Duration::try_from_secs_f64(seconds);
            timeout.map_err(|_| SessionError::Timeout(seconds.to_string()))
        };
        let session = Session {
            tree: Tree::default(),
            is_streaming: request.streaming.unwrap_or(false),
            timeout: request.timeout.map(as_timeout).transpose()?,
            last_active: Instant::now(),
        };
        let mut sessions = self.open_ones();
        let id = request.session_id.unwrap_or_else(|| Uuid::new_v4().simple().to_string());
        if sessions.contains_key(&id) {
            return Err(SessionError::IsOpen);
        }
        make_room(&mut sessions, MAX_SESSIONS - 1, MAX_TOKENS, &id);
        sessions.insert(id.clone(), session);
        Ok(id)
    }

    /// Whether there was such a session. Its requests that run go on.
    pub(crate) fn close(&self, id: &str) -> bool {
        self.open_ones().remove(id).is_some()
    }

    /// Gives the request `rid` with these new tokens its place. `bos` begins texts, and would be
    /// in the middle of one.
    ///
    /// # Errors
    /// There is no such place, or it is not free.
    pub(crate) fn begin(
        self: &Arc<Self>,
        (id, params): (&str, &SessionParams),
        rid: &Rid,
        mut input: Vec<TokenId>,
        bos: Option<TokenId>,
    ) -> Result<Begun, SessionError> {
        let mut sessions = self.open_ones();
        let session = sessions.get_mut(id).ok_or_else(|| SessionError::NoSession(id.to_owned()))?;
        let base = session.base(params)?;
        if base.is_some() && bos.is_some_and(|bos| input.first() == Some(&bos)) {
            input.remove(0);
        }
        let mut replaced = Vec::new();
        if params.replace.unwrap_or(false) {
            replaced = session.tree.clear_after(base.as_ref().map(|base| base.turn));
        }
        let input_ids = session.tree.with_history(base.as_ref(), &input);
        if input_ids.is_empty() {
            return Err(SessionError::Empty);
        }
        let turn = session.tree.insert(rid.clone(), base, input);
        session.last_active = Instant::now();
        make_room(&mut sessions, MAX_SESSIONS, MAX_TOKENS, id);
        let is_full = num_tokens(&sessions) > MAX_TOKENS;
        drop(sessions);
        // If it is dropped here, it takes itself out.
        let session = id.to_owned();
        let turn = Turn { sessions: Arc::clone(self), session, turn, has_ended: false };
        if is_full { Err(SessionError::Full) } else { Ok(Begun { turn, input_ids, replaced }) }
    }

    /// Without those whose time is over.
    fn open_ones(&self) -> MutexGuard<'_, HashMap<String, Session>> {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|id, session| {
            let is_over = session.is_over();
            if is_over {
                tracing::info!("the session {id} has timed out");
            }
            !is_over
        });
        sessions
    }
}

fn num_tokens(sessions: &HashMap<String, Session>) -> usize {
    sessions.values().map(|session| session.tree.num_tokens()).sum()
}

/// Closes sessions that nobody uses, the oldest first, but not `kept`.
fn make_room(
    sessions: &mut HashMap<String, Session>,
    max_sessions: usize,
    max_tokens: usize,
    kept: &str,
) {
    while sessions.len() > max_sessions || num_tokens(sessions) > max_tokens {
        let idle = sessions.iter().filter(|(id, session)| *id != kept && !session.tree.is_busy());
        let oldest = idle.min_by_key(|(_, session)| session.last_active);
        let Some(id) = oldest.map(|(id, _)| id.clone()) else { return };
        tracing::warn!("the session {id} is closed: there are too many");
        sessions.remove(&id);
    }
}

impl Session {
    fn is_over(&self) -> bool {
        let is_late = |timeout| self.last_active.elapsed() > timeout;
        self.timeout.is_some_and(is_late) && !self.tree.is_busy()
    }

    /// What a request goes on from.
    fn base(&self, params: &SessionParams) -> Result<Option<Base>, SessionError> {
        let replaces = params.replace.unwrap_or(false);
        let drops_output = params.drop_previous_output.unwrap_or(false);
        let offset = params.offset.unwrap_or(0);
        if self.is_streaming {
            if self.tree.is_busy() {
                return Err(SessionError::Busy);
            }
            let refused = [
                ("replace", replaces),
                ("drop_previous_output", drops_output),
                ("offset", offset != 0),
            ];
            return match refused.into_iter().find(|(_, is_set)| *is_set) {
                Some((name, _)) => Err(SessionError::OnlyAppends(name)),
                None => Ok(self.tree.last().map(|turn| self.tree.base(turn, false, 0))),
            };
        }
        let Some(rid) = &params.rid else { return Ok(None) };
        let turn = self.tree.find(rid).ok_or(SessionError::NoRequest)?;
        if !replaces && !self.tree.has_ended(turn) {
            return Err(SessionError::Unfinished);
        }
        Ok(Some(self.tree.base(turn, drops_output, offset)))
    }
}

impl Turn {
    /// Tokens of the completion.
    pub(crate) fn push(&self, output: &[TokenId]) {
        self.with_session(|session| session.tree.push(self.turn, output));
    }

    /// The completion has ended, or was given up.
    pub(crate) fn end(&mut self, is_success: bool) {
        self.has_ended = true;
        self.with_session(|session| {
            session.last_active = Instant::now();
            match (session.is_streaming, is_success) {
                (false, _) => session.tree.end(self.turn),
                (true, true) => session.tree.keep_only(self.turn),
                (true, false) => session.tree.remove(self.turn),
            }
        });
    }

    fn with_session(&self, change: impl FnOnce(&mut Session)) {
        let mut sessions = self.sessions.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = sessions.get_mut(&self.session) {
            change(session);
        }
    }
}

/// A request that never began has no place.
impl Drop for Turn {
    fn drop(&mut self) {
        if !self.has_ended {
            self.with_session(|session| session.tree.remove(self.turn));
        }
    }
}

#[cfg(test)]
mod tests;

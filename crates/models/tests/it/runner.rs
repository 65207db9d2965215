//! Runs a model over a pool whose pages lie scattered. Layers with a window have pages of
//! their own, and of those no more than they see.

use std::{cell::RefCell, rc::Rc};

use attention::{
    AttentionBackend, BatchInputs, Extent, ForwardBatch, ForwardMode, KvDtype, KvPool,
    KvPoolConfig, StatePlan, StateRow, WindowInputs,
};
use mlx::{Array, Dtype};
use models::CausalLm;

const NUM_PAGES: u32 = 251;
const NUM_STATES: usize = 400;

pub(crate) struct Runner {
    model: Box<dyn CausalLm>,
    backend: Rc<dyn AttentionBackend>,
    pool: Rc<RefCell<KvPool>>,
    page_size: usize,
    pages_taken: u32,
    /// For models with recurrent layers.
    states_taken: usize,
    is_recurrent: bool,
    /// The largest of the model.
    window: Option<usize>,
    dtype: Dtype,
}

/// A request: its tokens, how many are in the pool, and where.
#[derive(Clone)]
pub(crate) struct Seq {
    pub(crate) ids: Vec<i32>,
    pub(crate) cached: usize,
    pages: Vec<u32>,
    /// Its state, and copies of it by tokens seen, one at each page boundary.
    state: Option<usize>,
    begins_with: Option<usize>,
    snapshots: Vec<(usize, usize)>,
}

impl Runner {
    pub(crate) fn new(model: Box<dyn CausalLm>, page_size: usize) -> Self {
        Self::with_dtypes(model, page_size, Dtype::Float32, Dtype::Float32.into())
    }

    /// With a model that computes in `dtype`, over a pool of rows of `pool_dtype`.
    pub(crate) fn with_dtypes(
        model: Box<dyn CausalLm>,
        page_size: usize,
        dtype: Dtype,
        pool_dtype: KvDtype,
    ) -> Self {
        let layers = model.kv_layout();
        let window = layers.iter().filter_map(|layer| layer.kept_tokens()).max();
        let config = KvPoolConfig {
            num_pages: NUM_PAGES as usize,
            num_window_pages: window.map(|_| NUM_PAGES as usize),
            page_size,
            dtype: pool_dtype,
            max_buffer_bytes: None,
        };
        let backend = attention::build("mlx", "mlx", &layers, pool_dtype).unwrap();
        let states = model.state_layout();
        let pool = KvPool::new(&layers, &config).unwrap();
        let pool = pool.with_states(&states, (NUM_STATES, dtype), &config).unwrap();
        Self {
            model,
            backend,
            pool: Rc::new(RefCell::new(pool)),
            page_size,
            pages_taken: 0,
            states_taken: 0,
            is_recurrent: !states.is_empty(),
            window,
            dtype,
        }
    }

    fn new_state(&mut self) -> usize {
        self.states_taken += 1;
        assert!(self.states_taken < NUM_STATES, "the pool of states is full");
        self.states_taken
    }

    /// The extents from the page on that the first new token's window begins in.
    fn window_inputs(&self, window: usize, extents: &[Extent]) -> WindowInputs {
        let page_size = self.page_size;
        let kept = |extent: &Extent| {
            let first = (extent.prefix_len + 1).saturating_sub(window) / page_size;
            let pages = extent.pages[first..].iter().map(|page| (page * 31 + 5) % NUM_PAGES);
            let prefix_len = extent.prefix_len - first * page_size;
            Extent { prefix_len, pages: pages.collect(), ..*extent }
        };
        let extents: Vec<Extent> = extents.iter().map(kept).collect();
        let slot = |extent: &Extent, position: usize| {
            let page = extent.pages[position / page_size] as usize;
            (page * page_size + position % page_size) as i32
        };
        let slots = |extent: &Extent| {
            let positions = extent.prefix_len..extent.seq_len();
            positions.map(|position| slot(extent, position)).collect::<Vec<_>>()
        };
        WindowInputs { out_cache_loc: extents.iter().flat_map(slots).collect(), extents }
    }

    /// How the state of a request passes through its next tokens, which begin at row
    /// `start`.
    fn plan_state(&mut self, seq: &mut Seq, (start, len): (usize, usize), plan: &mut StatePlan) {
        let (state, from) = match seq.state {
            Some(state) => (state, Some(state)),
            None => (self.new_state(), seq.begins_with),
        };
        seq.state = Some(state);
        plan.rows.push(StateRow { start, len, from, to: state });
        for seen in seq.cached + 1..=seq.cached + len {
            if seen.is_multiple_of(self.page_size) {
                let copy = self.new_state();
                seq.snapshots.push((seen, copy));
                plan.saves.push((start + seen - seq.cached - 1, copy));
            }
        }
    }

    pub(crate) fn seq(&self, ids: &[i32]) -> Seq {
        Seq {
            ids: ids.to_vec(),
            cached: 0,
            pages: Vec::new(),
            state: None,
            begins_with: None,
            snapshots: Vec::new(),
        }
    }

    /// A request that finds the first `len` tokens of another in the cache.
    pub(crate) fn seq_after(&self, other: &Seq, len: usize, ids: &[i32]) -> Seq {
        assert!(len.is_multiple_of(self.page_size) && len <= other.cached);
        let pages = other.pages[..len / self.page_size].to_vec();
        let snapshot = other.snapshots.iter().find(|&&(seen, _)| seen == len);
        assert_eq!(snapshot.is_some(), self.is_recurrent);
        Seq {
            cached: len,
            pages,
            begins_with: snapshot.map(|&(_, state)| state),
            ..self.seq(&[&other.ids[..len], ids].concat())
        }
    }

    /// Computes the next `len` tokens of each request in one step; the logits
    /// after the last token of each.
    pub(crate) fn step(
        &mut self,
        mode: ForwardMode,
        parts: &mut [(&mut Seq, usize)],
    ) -> Vec<Vec<f32>> {
        let (mut ids, mut positions, mut out_cache_loc) = (Vec::new(), Vec::new(), Vec::new());
        let (mut extents, mut sampled_rows) = (Vec::new(), Vec::new());
        let mut plan = StatePlan::default();
        for (seq, len) in &mut *parts {
            let (start, prefix_len) = (ids.len(), seq.cached);
            let end = prefix_len + *len;
            if self.is_recurrent {
                self.plan_state(seq, (start, *len), &mut plan);
            }
            while seq.pages.len() * self.page_size < end {
                assert!(self.pages_taken < NUM_PAGES, "the pool is full");
                self.pages_taken += 1;
                seq.pages.push(self.pages_taken * 97 % NUM_PAGES);
            }
            ids.extend_from_slice(&seq.ids[prefix_len..end]);
            for position in prefix_len..end {
                positions.push(position as i32);
                let page = seq.pages[position / self.page_size] as usize;
                out_cache_loc.push((page * self.page_size + position % self.page_size) as i32);
            }
            sampled_rows.push(ids.len() as i32 - 1);
            extents.push(Extent { start, len: *len, prefix_len, pages: seq.pages.clone() });
            seq.cached = end;
        }
        let windows = self.window.map(|window| self.window_inputs(window, &extents));
        let inputs = BatchInputs {
            windows,
            mode,
            input_ids: Array::from_slice(&ids, &[ids.len()]).unwrap(),
            positions,
            out_cache_loc,
            extents,
            sampled_rows,
            states: self.is_recurrent.then_some(plan),
            token_types: None,
        };
        let batch =
            ForwardBatch::new(inputs, Rc::clone(&self.backend), Rc::clone(&self.pool)).unwrap();
        let logits = self.model.forward(&batch).unwrap();
        assert_eq!(logits.shape(), [parts.len(), self.model.vocab_size()]);
        assert_eq!(logits.dtype(), self.dtype);
        let logits: Vec<f32> = logits.astype(Dtype::Float32).unwrap().to_vec().unwrap();
        logits.chunks(self.model.vocab_size()).map(<[f32]>::to_vec).collect()
    }

    /// Prefills the rest of one request in chunks; the logits after its last
    /// token.
    pub(crate) fn prefill(&mut self, seq: &mut Seq, chunk: usize) -> Vec<f32> {
        let mut logits = Vec::new();
        while seq.cached < seq.ids.len() {
            let len = chunk.min(seq.ids.len() - seq.cached);
            logits = self.step(ForwardMode::Extend, &mut [(seq, len)]).remove(0);
        }
        logits
    }

    /// Greedy tokens of one request, `logits` being those after its prompt.
    pub(crate) fn decode(&mut self, seq: &mut Seq, mut logits: Vec<f32>, steps: usize) -> Vec<i32> {
        let mut tokens = vec![argmax(&logits)];
        while tokens.len() < steps {
            seq.ids.push(tokens[tokens.len() - 1]);
            logits = self.step(ForwardMode::Decode, &mut [(seq, 1)]).remove(0);
            tokens.push(argmax(&logits));
        }
        tokens
    }
}

pub(crate) fn argmax(logits: &[f32]) -> i32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
    best.unwrap().0 as i32
}

/// Largest absolute difference.
pub(crate) fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

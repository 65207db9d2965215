//! Runs a model over a pool whose pages lie scattered.

use std::{cell::RefCell, rc::Rc};

use attention::{
    AttentionBackend, BatchInputs, Extent, ForwardBatch, ForwardMode, KvPool, KvPoolConfig,
};
use mlx::{Array, Dtype};
use models::CausalLm;

const NUM_PAGES: u32 = 251;

pub(crate) struct Runner {
    model: Box<dyn CausalLm>,
    backend: Rc<dyn AttentionBackend>,
    pool: Rc<RefCell<KvPool>>,
    page_size: usize,
    pages_taken: u32,
    dtype: Dtype,
}

/// A request: its tokens, how many are in the pool, and where.
#[derive(Clone)]
pub(crate) struct Seq {
    pub(crate) ids: Vec<i32>,
    pub(crate) cached: usize,
    pages: Vec<u32>,
}

impl Runner {
    pub(crate) fn new(model: Box<dyn CausalLm>, page_size: usize) -> Self {
        Self::with_dtypes(model, page_size, Dtype::Float32, Dtype::Float32)
    }

    /// With a model that computes in `dtype`, over a pool of `pool_dtype`.
    pub(crate) fn with_dtypes(
        model: Box<dyn CausalLm>,
        page_size: usize,
        dtype: Dtype,
        pool_dtype: Dtype,
    ) -> Self {
        let layers = model.kv_layout();
        let config = KvPoolConfig {
            num_pages: NUM_PAGES as usize,
            page_size,
            dtype: pool_dtype,
            max_buffer_bytes: None,
        };
        let backend = (attention::find("mlx", &layers).unwrap().new)(&layers);
        let pool = Rc::new(RefCell::new(KvPool::new(&layers, &config).unwrap()));
        Self { model, backend, pool, page_size, pages_taken: 0, dtype }
    }

    pub(crate) fn seq(&self, ids: &[i32]) -> Seq {
        Seq { ids: ids.to_vec(), cached: 0, pages: Vec::new() }
    }

    /// A request that finds the first `len` tokens of another in the cache.
    pub(crate) fn seq_after(&self, other: &Seq, len: usize, ids: &[i32]) -> Seq {
        assert!(len.is_multiple_of(self.page_size) && len <= other.cached);
        let pages = other.pages[..len / self.page_size].to_vec();
        Seq { ids: [&other.ids[..len], ids].concat(), cached: len, pages }
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
        for (seq, len) in &mut *parts {
            let (start, prefix_len) = (ids.len(), seq.cached);
            let end = prefix_len + *len;
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
        let inputs = BatchInputs {
            mode,
            input_ids: Array::from_slice(&ids, &[ids.len()]).unwrap(),
            positions,
            out_cache_loc,
            extents,
            sampled_rows,
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

//! Which pages to gather and which keys to hide, worked out once a step.

use std::cmp::Reverse;

use mlx::{Array, Result};

use crate::{Extent, StepLayout};

/// A decode group holds requests down to this fraction of its longest one's
/// pages: padding reads at most twice what is needed.
const MAX_PADDING: usize = 2;

/// Below this many pages a request is not worth a call of its own.
const SHORT_TOKENS: usize = 64;

pub(super) enum Mask {
    None,
    /// Queries are the last keys.
    Causal,
    /// Boolean; true: seen.
    Array(Array),
}

/// One request of an extend step.
pub(super) struct ExtendSeq {
    /// Its rows.
    pub(super) start: usize,
    pub(super) len: usize,
    /// Pages to gather; `None` if the step's own keys are all.
    pub(super) pages: Option<Array>,
    /// Keys in use, from the first gathered one.
    pub(super) num_keys: usize,
    /// `[len, num_keys]` if an array.
    pub(super) mask: Mask,
}

/// The calls of a decode step.
pub(super) struct DecodePlan {
    pub(super) groups: Vec<DecodeGroup>,
    /// Puts the rows of all groups back into the order of the step, `[num_reqs]`.
    pub(super) restore: Option<Array>,
}

/// Requests whose attention is one call.
pub(super) struct DecodeGroup {
    /// Their rows, `[num_reqs]`; `None` if they are all, in order.
    pub(super) rows: Option<Array>,
    pub(super) num_reqs: usize,
    /// Keys of each, padding included.
    pub(super) num_keys: usize,
    /// `[num_reqs * num_keys / page_size]`.
    pub(super) pages: Array,
    /// `[num_reqs, 1, 1, num_keys]` if an array.
    pub(super) mask: Mask,
}

/// The part of a sequence that some query of the step sees.
struct Visible<'a> {
    pages: &'a [u32],
    /// Position of the first key of `pages`.
    base: usize,
}

impl<'a> Visible<'a> {
    fn new(extent: &'a Extent, window: Option<usize>, page_size: usize) -> Self {
        // The first query, at `prefix_len`, reaches back furthest.
        let first_key = window.map_or(0, |window| (extent.prefix_len + 1).saturating_sub(window));
        let first_page = first_key / page_size;
        let end_page = extent.seq_len().div_ceil(page_size);
        Self { pages: &extent.pages[first_page..end_page], base: first_page * page_size }
    }
}

impl ExtendSeq {
    pub(super) fn plan(step: &StepLayout<'_>, window: Option<usize>) -> Result<Vec<Self>> {
        step.extents.iter().map(|extent| Self::new(extent, window, step.page_size)).collect()
    }

    fn new(extent: &Extent, window: Option<usize>, page_size: usize) -> Result<Self> {
        let visible = Visible::new(extent, window, page_size);
        let num_keys = extent.seq_len() - visible.base;
        let hides = window.filter(|&window| extent.seq_len() > window);
        let mask = match hides {
            Some(window) => Mask::Array(windowed(extent, window, visible.base, num_keys)?),
            None if extent.len == 1 => Mask::None,
            None => Mask::Causal,
        };
        let pages = (extent.prefix_len > 0).then(|| indices(visible.pages.iter().copied()));
        Ok(Self { start: extent.start, len: extent.len, pages: pages.transpose()?, num_keys, mask })
    }
}

/// `[len, num_keys]`: a query sees itself and `window - 1` keys before.
fn windowed(extent: &Extent, window: usize, base: usize, num_keys: usize) -> Result<Array> {
    let mut seen = vec![false; extent.len * num_keys];
    for (row, seen) in seen.chunks_exact_mut(num_keys).enumerate() {
        let position = extent.prefix_len + row;
        let first = (position + 1).saturating_sub(window).max(base);
        seen[first - base..=position - base].fill(true);
    }
    Array::from_slice(&seen, &[extent.len, num_keys])
}

impl DecodePlan {
    pub(super) fn new(step: &StepLayout<'_>, window: Option<usize>) -> Result<Self> {
        let visible: Vec<Visible<'_>> = step
            .extents
            .iter()
            .map(|extent| Visible::new(extent, window, step.page_size))
            .collect();
        let members = grouped(&visible, SHORT_TOKENS.div_ceil(step.page_size));
        let in_order = members.len() == 1;
        let groups = members
            .iter()
            .map(|rows| DecodeGroup::new(step, window, &visible, rows, in_order))
            .collect::<Result<_>>()?;
        let restore = (!in_order).then(|| {
            let mut place = vec![0; visible.len()];
            for (at, &row) in members.iter().flatten().enumerate() {
                place[row] = at as i32;
            }
            Array::from_slice(&place, &[place.len()])
        });
        Ok(Self { groups, restore: restore.transpose()? })
    }
}

/// Rows of each group. One group keeps the order of the step.
fn grouped(visible: &[Visible<'_>], short_pages: usize) -> Vec<Vec<usize>> {
    let num_pages = |row: usize| visible[row].pages.len();
    let mut rows: Vec<usize> = (0..visible.len()).collect();
    rows.sort_by_key(|&row| (Reverse(num_pages(row)), row));
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for row in rows {
        match groups.last_mut() {
            Some(group)
                if num_pages(group[0]) <= (MAX_PADDING * num_pages(row)).max(short_pages) =>
            {
                group.push(row);
            }
            _ => groups.push(vec![row]),
        }
    }
    if let [only] = groups.as_mut_slice() {
        only.sort_unstable();
    }
    groups
}

impl DecodeGroup {
    fn new(
        step: &StepLayout<'_>,
        window: Option<usize>,
        visible: &[Visible<'_>],
        rows: &[usize],
        in_order: bool,
    ) -> Result<Self> {
        let longest = rows.iter().map(|&row| visible[row].pages.len()).max().unwrap_or(0);
        let num_keys = longest * step.page_size;
        let mut pages = Vec::with_capacity(rows.len() * longest);
        let mut seen = vec![false; rows.len() * num_keys];
        for (&row, seen) in rows.iter().zip(seen.chunks_exact_mut(num_keys)) {
            let (own, seq_len) = (&visible[row], step.extents[row].seq_len());
            pages.extend_from_slice(own.pages);
            // Padding repeats a page of the request itself: whatever another
            // request has in its pages (NaN, say) stays out.
            pages.extend(std::iter::repeat_n(own.pages[0], longest - own.pages.len()));
            let first = window.map_or(0, |window| seq_len.saturating_sub(window)).max(own.base);
            seen[first - own.base..seq_len - own.base].fill(true);
        }
        let mask = if seen.iter().all(|&seen| seen) {
            Mask::None
        } else {
            Mask::Array(Array::from_slice(&seen, &[rows.len(), 1, 1, num_keys])?)
        };
        let row_ids = (!in_order).then(|| indices(rows.iter().map(|&row| row as u32)));
        Ok(Self {
            rows: row_ids.transpose()?,
            num_reqs: rows.len(),
            num_keys,
            pages: indices(pages.into_iter())?,
            mask,
        })
    }
}

fn indices(values: impl Iterator<Item = u32>) -> Result<Array> {
    let values: Vec<i32> = values.map(|value| value as i32).collect();
    Array::from_slice(&values, &[values.len()])
}

//! Which slots to gather and which keys to hide, worked out once a step.

use std::{cmp::Reverse, ops::Range};

use kernels::Reach;
use mlx::{Array, Result};

use crate::{Extent, SlotIndex, StepLayout};

/// A decode group holds requests down to this fraction of its longest one's
/// keys: padding reads at most twice what is needed.
const MAX_PADDING: usize = 2;

/// Below this many keys a request is not worth a call of its own.
const SHORT_KEYS: usize = 64;

pub(super) enum Mask {
    None,
    /// Queries are the last keys.
    Causal,
    /// Boolean; true: seen.
    Array(Array),
}

/// One request of an extend step.
pub(in crate::backends) struct ExtendSeq {
    /// Its rows.
    pub(super) start: usize,
    pub(super) len: usize,
    /// Keys to gather, those of this step at the end; `None` if these are all.
    pub(super) slots: Option<SlotIndex>,
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
    /// Keys of each, padded to the longest.
    pub(super) slots: SlotIndex,
    /// `[num_reqs, 1, 1, num_keys]` if an array.
    pub(super) mask: Mask,
}

/// The keys that some query of the step sees.
fn visible(extent: &Extent, reach: Reach) -> Range<usize> {
    // The first query, at `prefix_len`, reaches back furthest.
    reach.first_visible(extent.prefix_len)..extent.seq_len()
}

fn slots<'a>(
    extent: &'a Extent,
    keys: &Range<usize>,
    page_size: usize,
) -> impl Iterator<Item = i32> + use<'a> {
    let slot = move |key: usize| {
        let page = extent.pages[key / page_size] as usize;
        (page * page_size + key % page_size) as i32
    };
    keys.clone().map(slot)
}

impl ExtendSeq {
    pub(in crate::backends) fn plan(step: &StepLayout<'_>, reach: Reach) -> Result<Vec<Self>> {
        step.extents.iter().map(|extent| Self::new(extent, reach, step.page_size)).collect()
    }

    fn new(extent: &Extent, reach: Reach, page_size: usize) -> Result<Self> {
        let keys = visible(extent, reach);
        // The last query reaches back least.
        let all_begin_together = reach.first_visible(extent.seq_len() - 1) == keys.start;
        let mask = match extent.len {
            1 => Mask::None,
            _ if all_begin_together => Mask::Causal,
            _ => Mask::Array(seen_by_each(extent, reach, &keys)?),
        };
        let gather = || {
            let slots: Vec<i32> = slots(extent, &keys, page_size).collect();
            SlotIndex::new(&slots, 1, slots.len())
        };
        let slots = (extent.prefix_len > 0).then(gather).transpose()?;
        Ok(Self { start: extent.start, len: extent.len, slots, mask })
    }
}

/// `[len, num_keys]`: which keys each query sees.
fn seen_by_each(extent: &Extent, reach: Reach, keys: &Range<usize>) -> Result<Array> {
    let num_keys = keys.len();
    let mut seen = vec![false; extent.len * num_keys];
    for (row, seen) in seen.chunks_exact_mut(num_keys).enumerate() {
        let position = extent.prefix_len + row;
        let first = reach.first_visible(position);
        seen[first - keys.start..=position - keys.start].fill(true);
    }
    Array::from_slice(&seen, &[extent.len, num_keys])
}

impl DecodePlan {
    pub(super) fn new(step: &StepLayout<'_>, reach: Reach, max_group_keys: usize) -> Result<Self> {
        let visible: Vec<Range<usize>> =
            step.extents.iter().map(|extent| visible(extent, reach)).collect();
        let members = grouped(&visible, max_group_keys);
        let in_order = members.len() == 1;
        let groups = members
            .iter()
            .map(|rows| DecodeGroup::new(step, &visible, rows, in_order))
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
fn grouped(visible: &[Range<usize>], max_keys: usize) -> Vec<Vec<usize>> {
    let num_keys = |row: usize| visible[row].len();
    let mut rows: Vec<usize> = (0..visible.len()).collect();
    rows.sort_by_key(|&row| (Reverse(num_keys(row)), row));
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for row in rows {
        let joins = |group: &&mut Vec<usize>| {
            let longest = num_keys(group[0]);
            longest <= (MAX_PADDING * num_keys(row)).max(SHORT_KEYS)
                && longest * (group.len() + 1) <= max_keys
        };
        match groups.last_mut().filter(joins) {
            Some(group) => group.push(row),
            None => groups.push(vec![row]),
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
        visible: &[Range<usize>],
        rows: &[usize],
        in_order: bool,
    ) -> Result<Self> {
        let num_keys = rows.iter().map(|&row| visible[row].len()).max().unwrap_or(0);
        let mut padded = Vec::with_capacity(rows.len() * num_keys);
        for &row in rows {
            let own = padded.len();
            padded.extend(slots(&step.extents[row], &visible[row], step.page_size));
            // Padding repeats a slot of the request itself: whatever another
            // request has in its slots (NaN, say) stays out.
            padded.resize(own + num_keys, padded[own]);
        }
        let mask = if rows.iter().all(|&row| visible[row].len() == num_keys) {
            Mask::None
        } else {
            let seen = |&row: &usize| (0..num_keys).map(move |key| key < visible[row].len());
            let seen: Vec<bool> = rows.iter().flat_map(seen).collect();
            Mask::Array(Array::from_slice(&seen, &[rows.len(), 1, 1, num_keys])?)
        };
        let row_ids: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
        let row_ids = (!in_order).then(|| Array::from_slice(&row_ids, &[row_ids.len()]));
        Ok(Self {
            rows: row_ids.transpose()?,
            num_reqs: rows.len(),
            slots: SlotIndex::new(&padded, rows.len(), num_keys)?,
            mask,
        })
    }
}

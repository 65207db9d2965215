//! Which group each input belongs to, where a checkpoint says so (`g_idx`).

use std::rc::Rc;

use mlx::{Array, Dtype};
use nn::TensorSource;

use super::sources::Module;
use crate::{ImportProblem, LoadError};

/// Adds `weight`, `view` of the words of 32 bits that `packed` holds, which fails on
/// reading if the groups are not runs of neighbouring inputs: MLX knows no others.
pub(super) fn put_words(
    module: &mut Module<'_>,
    (packed, shape): (Rc<dyn TensorSource>, [usize; 2]),
    [in_dims, groups]: [usize; 2],
    order_part: &str,
    view: fn(&Array) -> mlx::Result<Array>,
) -> Result<(), LoadError> {
    let mut parts = vec![packed];
    parts.extend(module.take_optional(order_part));
    let (method, name, tensor) = (module.method(), module.name("weight"), module.name(order_part));
    let make = move |parts: &[Array]| {
        let place = |source| nn::LoadError::Place { name: name.clone(), source };
        let is_plain = match parts.get(1) {
            None => true,
            Some(order) => counts_groups(order, in_dims, groups).map_err(place)?,
        };
        if is_plain {
            return view(&parts[0])
                .and_then(|words| words.contiguous()?.view(Dtype::Uint32))
                .map_err(place);
        }
        let (tensor, problem) = (tensor.clone(), ImportProblem::GroupOrder);
        let source = Box::new(LoadError::ImportTensor { method, tensor, problem });
        Err(nn::LoadError::Read { name: name.clone(), source })
    };
    module.put_checked("weight", (shape.to_vec(), Dtype::Uint32), parts, Box::new(make))
}

/// Whether input `i` belongs to group `i / group_size`.
fn counts_groups(order: &Array, in_dims: usize, groups: usize) -> mlx::Result<bool> {
    let order = order.astype(Dtype::Int32)?.to_vec::<i32>()?;
    let group_size = in_dims.div_ceil(groups.max(1)).max(1);
    let is_at = |(place, &group): (usize, &i32)| usize::try_from(group) == Ok(place / group_size);
    Ok(order.len() == in_dims && order.iter().enumerate().all(is_at))
}

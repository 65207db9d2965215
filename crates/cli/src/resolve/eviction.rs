//! The eviction policy and its parameters.

use anyhow::{Context, Result, bail};
use engine::EvictionPolicy;

use super::json_object;
use crate::args::MemoryArgs;

const CONFIG: &str = "--radix-eviction-policy-config";

impl MemoryArgs {
    /// # Errors
    /// An unknown policy, a parameter that it does not take, a value out of range.
    pub(super) fn eviction_policy(&self) -> Result<EvictionPolicy> {
        let name = &self.radix_eviction_policy;
        let mut policy: EvictionPolicy = name.parse().context("--radix-eviction-policy")?;
        let config = self.radix_eviction_policy_config.as_deref().unwrap_or("{}");
        for (key, value) in json_object(config).context(CONFIG)? {
            match (&mut policy, key.as_str()) {
                (EvictionPolicy::Slru { protected_threshold }, "protected_threshold") => {
                    let given = value.as_u64().and_then(|count| u32::try_from(count).ok());
                    let Some(count) = given.filter(|&count| count > 0) else {
                        bail!("{CONFIG}: {key} must be a positive integer, got {value}");
                    };
                    *protected_threshold = count;
                }
                _ => bail!("{CONFIG}: {name} takes no parameter `{key}`"),
            }
        }
        Ok(policy)
    }
}

//! Pools of packed rows through the whole engine.

use attention::KvDtype;

use super::*;

fn with_kv(base: &EngineConfig, kv_dtype: KvDtype) -> EngineConfig {
    EngineConfig { kv_cache_dtype: KvCacheDtype::Fixed(kv_dtype), ..base.clone() }
}

#[test]
fn tokens_do_not_depend_on_batch_cache_or_chunks() {
    let _alone = alone();
    let folder = tiny_llama();
    let base = config(folder.path());
    let requests = requests();
    let plain = run(&base, &requests, false).tokens;
    for kv_dtype in KvDtype::PACKED {
        let packed = with_kv(&base, kv_dtype);
        let alone = run(&packed, &requests, false);
        assert!(alone.stats.cached_tokens >= 80, "{kv_dtype}: {:?}", alone.stats);
        // Others may round to the very tokens.
        assert!(kv_dtype != KvDtype::Int4 || alone.tokens != plain);

        let memory =
            MemoryOptions { chunked_prefill: ChunkedPrefill::Tokens(16), ..base.memory.clone() };
        let schedule = ScheduleConfig { disable_radix_cache: true, ..base.schedule.clone() };
        let other = EngineConfig { memory, schedule, ..packed.clone() };
        let outcome = run(&other, &requests, true);
        assert_eq!(outcome.stats.cached_tokens, 0);
        assert_eq!(outcome.tokens, alone.tokens, "{kv_dtype}, in a batch, in chunks, no cache");

        let flat = run_flat(&packed, 64, &requests, false);
        assert_eq!((flat.tokens, flat.num_flat), (alone.tokens, 7), "{kv_dtype}, flat prefills");
    }
}

#[test]
fn the_plan_counts_packed_bytes() {
    let _alone = alone();
    let folder = tiny_llama();
    let base = config(folder.path());
    // K and V of 2 layers and 2 heads of 16 columns.
    let rows = 2 * LAYERS * 2;
    for (kv_dtype, row_bytes) in [
        (KvDtype::Plain(Dtype::Float32), 64),
        (KvDtype::Fp8E4m3, 16),
        (KvDtype::Int8, 24),
        (KvDtype::Int4, 16),
    ] {
        let plan = loading::load(&with_kv(&base, kv_dtype), &Quiet).unwrap().plan;
        assert_eq!(plan.max_total_num_tokens(), 2048);
        assert_eq!(plan.kv_pool_bytes, 2048 * rows * row_bytes, "{kv_dtype}");
    }
}

#[test]
fn a_backend_that_reads_none_is_refused() {
    let _alone = alone();
    let folder = tiny_llama();
    let base = config(folder.path());
    let config = EngineConfig {
        prefill_attention_backend: "sdpa".to_owned(),
        ..with_kv(&base, KvDtype::Int4)
    };
    let error = loading::load(&config, &Quiet).err().unwrap();
    assert_eq!(
        error.to_string(),
        "attention backend \"sdpa\" does not read a K/V cache of int4 (known: paged)"
    );
}

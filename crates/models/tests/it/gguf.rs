//! GGUF files of another writer against what mlx-lm makes of the same weights
//! (`tools/oracle/gguf_models.py`).

use std::{fs, path::PathBuf};

use mlx::Dtype;
use model_loader::{LoaderOptions, ModelSource, Quiet};
use nn::{LoadOptions, Unpack};

use crate::{goldens::assert_golden, tiny::Golden};

fn files() -> Vec<PathBuf> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../model-loader/testdata/gguf");
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> =
        paths.filter(|path| path.extension() == Some("gguf".as_ref())).collect();
    paths.sort();
    paths
}

#[test]
fn gguf_files_compute_what_mlx_lm_computes() {
    mlx::device::set_default(mlx::device::DeviceKind::Cpu).unwrap();
    assert_eq!(files().len(), 12);
    for path in files() {
        let golden = Golden::read(&path.with_extension("json"));
        for unpack in [Unpack::Always, Unpack::Never] {
            let options = LoadOptions { compute_dtype: Dtype::Float32, unpack };
            let source = ModelSource::Gguf(path.clone());
            let loaded = model_loader::load(&source, &LoaderOptions::new(options), &Quiet);
            let loaded = loaded.unwrap_or_else(|error| panic!("{}: {error}", golden.name));
            let model = models::load(&loaded.config, &loaded.weights);
            let model = model.unwrap_or_else(|error| panic!("{}: {error}", golden.name));
            assert_golden(model, &golden);
        }
    }
}

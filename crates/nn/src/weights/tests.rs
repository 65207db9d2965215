//! Strictness, packed matrices and dummy weights.

use mlx::quantized::{QuantMode, quantize};

use super::*;
use crate::held::Held;

const F32: LoadOptions = LoadOptions { compute_dtype: Dtype::Float32, unpack: Unpack::Never };
const DENSE: LoadOptions = LoadOptions { unpack: Unpack::Always, ..F32 };

fn store(options: LoadOptions, tensors: &[(&str, &Array)]) -> WeightStore {
    let mut store = WeightStore::new(options);
    for (name, array) in tensors {
        store.insert(*name, Held::boxed((*array).clone())).unwrap();
    }
    store
}

fn zeros(shape: &[usize]) -> Array {
    Array::zeros(shape, Dtype::Float32).unwrap()
}

/// A matrix of multiples of 1/64 with its packed form.
fn packed(rows: usize, cols: usize, group_size: usize, bits: usize) -> [Array; 3] {
    let values: Vec<f32> = (0..rows * cols).map(|i| (i * 7 % 61) as f32 / 64.0).collect();
    let dense = Array::from_slice(&values, &[rows, cols]).unwrap();
    let packed = quantize(&dense, group_size, bits, QuantMode::Affine).unwrap();
    [packed.weight, packed.scales, packed.biases.unwrap()]
}

fn linear_store(options: LoadOptions, [weight, scales, biases]: &[Array; 3]) -> WeightStore {
    let names = [("fc.weight", weight), ("fc.scales", scales), ("fc.biases", biases)];
    store(options, &names)
}

fn text<T>(result: Result<T, LoadError>) -> String {
    result.err().expect("an error").to_string()
}

#[test]
fn every_strictness_names_the_weight() {
    let matrix = zeros(&[2, 3]);
    let weights = Weights::new(store(F32, &[("a.b.0.w", &matrix), ("a.extra", &matrix)]));
    let scope = weights.at("a").at("b").layer(0);
    assert_eq!(scope.path(), "a.b.0");
    assert!(scope.has("w") && !scope.has("v"));
    assert_eq!(text(scope.take("v", &[1])), "weight a.b.0.v is missing from the checkpoint");
    assert_eq!(
        text(scope.take("w", &[3, 2])),
        "weight a.b.0.w has shape [2, 3], the model needs [3, 2]"
    );
    assert_eq!(scope.take("w", &[2, 3]).unwrap().shape(), [2, 3]);
    assert_eq!(text(scope.take("w", &[2, 3])), "weight a.b.0.w was taken twice");
    assert_eq!(
        text(scope.finish(&[])),
        "the model does not use 1 tensor(s) of the checkpoint: a.extra"
    );
    weights.take("a.extra", &[2, 3]).unwrap();
    weights.finish(&[]).unwrap();
}

#[test]
fn a_name_cannot_come_twice() {
    let matrix = zeros(&[1]);
    let mut store = store(F32, &[("w", &matrix)]);
    let again = store.insert("w", Held::boxed(matrix));
    assert_eq!(text(again), "weight w occurs twice in the checkpoint");
}

#[test]
fn left_overs_need_a_rule() {
    let one = zeros(&[1]);
    let names = ["lm_head.scales", "lm_head.weight", "lm_heads.weight", "x.rotary_emb.inv_freq"];
    let weights = Weights::new(store(F32, &names.map(|name| (name, &one))));
    let left = |rules: &[LeftOver<'_>]| match weights.finish(rules) {
        Err(LoadError::LeftOver { names }) => names,
        other => panic!("{other:?}"),
    };
    assert_eq!(left(&[]), names);
    assert_eq!(left(&[LeftOver::Module("lm_head")]), names[2..]);
    assert_eq!(left(&[LeftOver::Name("lm_head.weight")]), [names[0], names[2], names[3]]);
    assert_eq!(left(&[LeftOver::Suffix("rotary_emb.inv_freq")]), names[..3]);
    assert_eq!(left(&[LeftOver::Suffix("emb.inv_freq")]), names, "whole parts of a path only");
    let names = ["model.layers.1.w", "model.layers.10.w", "model.layers.2.w", "model.layers.x.w"];
    let weights = Weights::new(store(F32, &names.map(|name| (name, &one))));
    let error = text(weights.finish(&[LeftOver::LayersFrom(2)]));
    assert!(error.ends_with(": model.layers.1.w, model.layers.x.w"), "{error}");
    let names = ["layers.1.k.w", "layers.2.k.w", "layers.3.kk.w", "layers.4.k", "m.layers.2.k.a.w"];
    let weights = Weights::new(store(F32, &names.map(|name| (name, &one))));
    let error = text(weights.finish(&[LeftOver::ModuleFrom { first: 2, module: "k" }]));
    assert!(error.ends_with(": layers.1.k.w, layers.3.kk.w, layers.4.k"), "{error}");
}

#[test]
fn many_left_overs_are_counted() {
    let names = (0..20).map(|i| format!("w{i}")).collect();
    let text = LoadError::LeftOver { names }.to_string();
    assert!(text.ends_with("w6, w7 and 12 more"), "{text}");
}

#[test]
fn floats_come_in_the_compute_dtype() {
    let options = LoadOptions { compute_dtype: Dtype::Bfloat16, unpack: Unpack::Never };
    let matrix = Array::from_slice(&[1.0f32, 1.001], &[2]).unwrap();
    let weights = Weights::new(store(options, &[("a", &matrix), ("b", &matrix)]));
    assert_eq!(weights.take("a", &[2]).unwrap().dtype(), Dtype::Bfloat16);
    assert_eq!(weights.take_as_stored("b", &[2]).unwrap().to_vec::<f32>().unwrap(), [1.0, 1.001]);
    let ids = Array::from_slice(&[1u32], &[1]).unwrap();
    let weights = Weights::new(store(options, &[("ids", &ids)]));
    let error = text(weights.take("ids", &[1]));
    assert_eq!(error, "weight ids has element type Uint32, expected floating-point");
}

#[test]
fn packed_parts_follow_from_the_tensors() {
    let parts = packed(4, 128, 32, 8);
    let weights = Weights::new(linear_store(F32, &parts));
    let LinearWeight::Quantized { weight, scales, biases, spec } =
        weights.at("fc").linear_parts(128, 4).unwrap()
    else {
        panic!("dense")
    };
    assert_eq!(spec, QuantSpec { group_size: 32, bits: 8, mode: QuantMode::Affine });
    assert_eq!((weight.shape(), scales.shape()), (vec![4, 32], vec![4, 4]));
    assert_eq!(biases.unwrap().to_vec::<f32>().unwrap(), parts[2].to_vec::<f32>().unwrap());
    weights.finish(&[]).unwrap();
}

#[test]
fn the_switch_dequantizes_matmuls_and_tied_embeddings_only() {
    let parts = packed(4, 64, 32, 4);
    let spec = QuantSpec { group_size: 32, bits: 4, mode: QuantMode::Affine };
    let [weight, scales, biases] = parts.clone();
    let expected = LinearWeight::Quantized { weight, scales, biases: Some(biases), spec };
    let expected = expected.dequantize(Dtype::Float32).unwrap().to_vec::<f32>().unwrap();

    let at = |parts| Weights::new(linear_store(DENSE, parts)).at("fc");
    let dense = |parts: LinearWeight| match parts {
        LinearWeight::Dense(array) => array.to_vec::<f32>().unwrap(),
        LinearWeight::Quantized { .. } => panic!("packed"),
    };
    assert_eq!(dense(at(&parts).linear_parts(64, 4).unwrap()), expected);
    assert_eq!(dense(at(&parts).embedding_parts(4, 64, true).unwrap()), expected);
    let untied = at(&parts).embedding_parts(4, 64, false).unwrap();
    assert!(matches!(untied, LinearWeight::Quantized { .. }));
}

#[test]
fn dequantizing_does_not_round_the_scales_first() {
    let options = LoadOptions { compute_dtype: Dtype::Bfloat16, unpack: Unpack::Always };
    let [weight, ..] = packed(1, 32, 32, 4);
    // bf16 would round this scale to 1.0, and 15 times the error shows.
    let scales = Array::from_slice(&[1.003f32], &[1, 1]).unwrap();
    let biases = Array::from_slice(&[0.0f32], &[1, 1]).unwrap();
    let weights = Weights::new(linear_store(options, &[weight.clone(), scales, biases])).at("fc");
    let LinearWeight::Dense(dense) = weights.linear_parts(32, 1).unwrap() else { panic!("packed") };
    let got = dense.astype(Dtype::Float32).unwrap().to_vec::<f32>().unwrap();
    let word = weight.to_vec::<u32>().unwrap()[0];
    let exact = f64::from(word >> 28) * 1.003;
    let expected = half_up_bf16(exact as f32);
    assert_eq!(got[7], expected, "word {word:08x}");
}

#[test]
fn narrow_scales_do_not_narrow_what_they_scale() {
    let narrow = |value: f32| Array::full(&[1, 1], value, Dtype::Bfloat16).unwrap();
    let (scale, bias) = (1.007_812_5, -7.5);
    let parts = LinearWeight::Quantized {
        weight: Array::from_slice(&[0x7654_3210_u32; 4], &[1, 4]).unwrap(),
        scales: narrow(scale),
        biases: Some(narrow(bias)),
        spec: QuantSpec { group_size: 32, bits: 4, mode: QuantMode::Affine },
    };
    let dense = parts.dequantize(Dtype::Float32).unwrap().to_vec::<f32>().unwrap();
    let expected: Vec<f32> = (0..8).map(|q| q as f32 * scale + bias).collect();
    assert_eq!(dense[..8], expected);
}

/// Rounds to bf16, ties aside.
fn half_up_bf16(value: f32) -> f32 {
    f32::from_bits((value.to_bits() + 0x8000) & 0xffff_0000)
}

#[test]
fn config_rules_over_the_tensors() {
    let parts = packed(4, 64, 32, 4);
    let spec = QuantSpec { group_size: 32, bits: 4, mode: QuantMode::Affine };
    let with = |quant: QuantConfig| {
        let mut store = linear_store(F32, &parts);
        store.set_quant(quant);
        Weights::new(store).at("fc")
    };
    with(QuantConfig::uniform(spec)).linear_parts(64, 4).unwrap();
    let wrong = QuantConfig::uniform(QuantSpec { bits: 8, ..spec });
    assert_eq!(
        text(with(wrong.clone()).linear_parts(64, 4)),
        "fc is quantized with affine 4-bit, group size 32, config.json says affine 8-bit, \
         group size 32"
    );
    let mut mended = wrong;
    mended.set("fc", Some(spec));
    with(mended).linear_parts(64, 4).unwrap();
    let mut excluded = QuantConfig::uniform(spec);
    excluded.set("fc", None);
    assert_eq!(
        text(with(excluded).linear_parts(64, 4)),
        "weight fc.weight has shape [4, 8], the model needs [4, 64]"
    );
}

#[test]
fn an_entry_without_scales_is_missing_them() {
    let weight = zeros(&[4, 64]);
    let spec = QuantSpec { group_size: 32, bits: 4, mode: QuantMode::Affine };
    let mut dense = store(F32, &[("fc.weight", &weight)]);
    dense.set_quant(QuantConfig::uniform(spec));
    let dense = Weights::new(dense).at("fc").linear_parts(64, 4).unwrap();
    assert!(matches!(dense, LinearWeight::Dense(_)), "no scales, no entry: not quantized");

    let mut named = QuantConfig::uniform(spec);
    named.set("fc", Some(spec));
    let mut store = store(F32, &[("fc.weight", &weight)]);
    store.set_quant(named);
    let error = text(Weights::new(store).at("fc").linear_parts(64, 4));
    assert_eq!(error, "weight fc.scales is missing from the checkpoint");
}

#[test]
fn packed_shapes_that_fit_nothing() {
    let [weight, scales, biases] = packed(4, 64, 32, 4);
    let fit = |weight: &Array, scales: &Array, in_dims| {
        let parts = [weight.clone(), scales.clone(), biases.clone()];
        text(Weights::new(linear_store(F32, &parts)).at("fc").linear_parts(in_dims, 4))
    };
    let error = fit(&weight, &scales, 96);
    assert_eq!(
        error,
        "fc: packed weight [4, 8] and scales [4, 2] fit no quantization of 96 input dimensions"
    );
    let float = zeros(&[4, 8]);
    assert!(fit(&float, &scales, 64).starts_with("weight fc.weight has element type Float32"));
    let bytes = scales.astype(Dtype::Uint8).unwrap();
    let parts = [weight.clone(), bytes, biases.clone()];
    let weights = Weights::new(linear_store(F32, &parts));
    let LinearWeight::Quantized { spec, biases: none, .. } =
        weights.at("fc").linear_parts(64, 4).unwrap()
    else {
        panic!("dense")
    };
    assert_eq!((spec.mode, none.is_none()), (QuantMode::Mxfp4, true));
    assert!(text(weights.finish(&[])).ends_with(": fc.biases"));
}

/// A module of another name in the MLX format: packed and told by that name, missed by
/// its own.
#[test]
fn a_module_is_told_under_its_other_name() {
    struct Names(Rc<RefCell<Vec<String>>>);
    impl WeightSink for Names {
        fn tensor(&mut self, name: &str, _: &Array) -> Result<(), LoadError> {
            self.0.borrow_mut().push(name.to_owned());
            Ok(())
        }
        fn packed(&mut self, path: &str, _: &LinearWeight) -> Result<(), LoadError> {
            self.0.borrow_mut().push(format!("{path} packed"));
            Ok(())
        }
    }
    let matrix = zeros(&[4, 64]);
    let tensors = [("old.gate.weight", &matrix), ("old.fc.weight", &matrix)];
    let weights = Weights::new(store(F32, &tensors));
    let names = Rc::new(RefCell::new(Vec::new()));
    weights.set_sink(Box::new(Names(Rc::clone(&names))));
    weights.quantize_on_load(QuantizeOnLoad {
        spec: QuantSpec::of_mode(QuantMode::Affine),
        dtype: None,
        choose: Rc::new(|path| match path {
            "new.inner.gate" => QuantChoice::Dense,
            _ => QuantChoice::Default,
        }),
    });
    let scope = weights.at("old").told_as(&weights.at("new").at("inner"));
    let missing = text(scope.at("gate").take("bias", &[4]));
    assert_eq!(missing, "weight old.gate.bias is missing from the checkpoint");
    scope.at("gate").linear_parts(64, 4).unwrap();
    scope.at("fc").linear_parts(64, 4).unwrap();
    assert_eq!(*names.borrow(), ["new.inner.gate.weight", "new.inner.fc packed"]);
}

#[test]
fn dummies_have_shape_type_and_size_of_the_real_thing() {
    let spec = QuantSpec { group_size: 64, bits: 4, mode: QuantMode::Affine };
    let mut quant = QuantConfig::uniform(spec);
    quant.set("gate", None);
    let options = LoadOptions { compute_dtype: Dtype::Float16, unpack: Unpack::Never };
    let weights = Weights::new(WeightStore::dummy(options, quant, 7));
    assert!(!weights.has("bias"));
    let LinearWeight::Quantized { weight, scales, biases, .. } =
        weights.at("fc").linear_parts(128, 8).unwrap()
    else {
        panic!("dense")
    };
    assert_eq!((weight.shape(), weight.dtype()), (vec![8, 16], Dtype::Uint32));
    assert_eq!((scales.shape(), scales.dtype()), (vec![8, 2], Dtype::Float16));
    assert_eq!(biases.unwrap().shape(), [8, 2]);
    let LinearWeight::Dense(gate) = weights.at("gate").linear_parts(128, 8).unwrap() else {
        panic!("packed")
    };
    assert_eq!((gate.shape(), gate.dtype()), (vec![8, 128], Dtype::Float16));
    weights.finish(&[]).unwrap();
}

#[test]
fn dummies_are_small_seeded_and_differ_by_name() {
    let take = |seed, name: &str| {
        let store = WeightStore::dummy(F32, QuantConfig::default(), seed);
        Weights::new(store).take(name, &[64]).unwrap().to_vec::<f32>().unwrap()
    };
    let values = take(7, "a");
    assert!(values.iter().all(|value| value.abs() <= 0.02));
    assert!(values.iter().any(|value| value.abs() > 0.005));
    assert_eq!(values, take(7, "a"));
    assert!(values != take(8, "a") && values != take(7, "b"));

    let spec = QuantSpec { group_size: 32, bits: 4, mode: QuantMode::Affine };
    let store = WeightStore::dummy(DENSE, QuantConfig::uniform(spec), 7);
    let LinearWeight::Dense(dense) = Weights::new(store).linear_parts(64, 16).unwrap() else {
        panic!("packed")
    };
    let largest = dense.to_vec::<f32>().unwrap().into_iter().fold(0.0, |a: f32, b| a.max(b.abs()));
    assert!((0.01..=0.04).contains(&largest), "{largest}");
}

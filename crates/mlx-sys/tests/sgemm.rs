//! `cblas_sgemm` against plain sums: layouts, transposes, strides, factors.
#![cfg(target_os = "linux")]
#![expect(unsafe_code, reason = "calls the C ABI")]

use mlx_sys::blas::cblas_sgemm;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((self.0 >> 33) % limit) as usize
    }

    /// Small whole numbers, so that sums are exact in any order.
    fn matrix(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.below(9) as f32 - 4.0).collect()
    }
}

/// Where element (row, column) is.
fn place(row: usize, column: usize, stride: usize, by_columns: bool) -> usize {
    if by_columns { column * stride + row } else { row * stride + column }
}

#[test]
fn agrees_with_plain_sums() {
    let mut random = Random(1);
    for case in 0..400 {
        let limit = if case % 20 == 0 { 150 } else { 20 };
        let [m, n, k] = [(); 3].map(|()| 1 + random.below(limit));
        let [column_major, trans_a, trans_b] = [(); 3].map(|()| random.below(2) == 1);
        let mut stride = |rows: usize, columns: usize, by_columns: bool| {
            let stride = if by_columns { rows } else { columns } + random.below(3);
            (stride, stride * if by_columns { columns } else { rows })
        };
        // A transposed matrix in rows is a plain one in columns.
        let (a_by, b_by) = (trans_a != column_major, trans_b != column_major);
        let (lda, a_len) = stride(m, k, a_by);
        let (ldb, b_len) = stride(k, n, b_by);
        let (ldc, c_len) = stride(m, n, column_major);
        let (a, b) = (random.matrix(a_len), random.matrix(b_len));
        let (alpha, beta) = ([1.0, -2.0][random.below(2)], [0.0, 1.0, 3.0][random.below(3)]);
        let old = random.matrix(c_len);
        let mut expected = old.clone();
        for row in 0..m {
            for column in 0..n {
                let at = place(row, column, ldc, column_major);
                let dot: f32 = (0..k)
                    .map(|x| a[place(row, x, lda, a_by)] * b[place(x, column, ldb, b_by)])
                    .sum();
                expected[at] = alpha * dot + beta * old[at];
            }
        }
        let mut c = old;
        if beta == 0.0 {
            // What is there must not matter, not even if it is no number.
            for row in 0..m {
                for column in 0..n {
                    c[place(row, column, ldc, column_major)] = f32::NAN;
                }
            }
        }
        let layout = if column_major { 102 } else { 101 };
        let transposed = |yes: bool| if yes { 112 } else { 111 };
        // SAFETY: the vectors have the sizes that the strides ask for.
        unsafe {
            cblas_sgemm(
                layout,
                transposed(trans_a),
                transposed(trans_b),
                m as i32,
                n as i32,
                k as i32,
                alpha,
                a.as_ptr(),
                lda as i32,
                b.as_ptr(),
                ldb as i32,
                beta,
                c.as_mut_ptr(),
                ldc as i32,
            );
        }
        assert_eq!(c, expected, "case {case}: {m} {n} {k} {column_major} {trans_a} {trans_b}");
    }
}

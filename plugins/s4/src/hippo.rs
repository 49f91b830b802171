//! Eigenvalues of HiPPO-LegS made normal (arXiv 2208.04933, section 4.2): -1/2 plus and minus i times what is computed
//! here.

/// The positive imaginary parts for a matrix of `size` rows, `size / 2` of them, the largest first.
///
/// The matrix is -1/2 I + S with S antisymmetric, S_nk = -sqrt((2n + 1)(2k + 1)) / 2 below the diagonal; the squares of
/// what is wanted are the eigenvalues of Sᵀ S, each of them twice (the method of Jacobi).
pub fn angles(size: usize) -> Vec<f64> {
    let entry = |row: usize, col: usize| {
        let root = ((2 * row + 1) as f64 * (2 * col + 1) as f64).sqrt() / 2.0;
        match row.cmp(&col) {
            std::cmp::Ordering::Less => root,
            std::cmp::Ordering::Equal => 0.0,
            std::cmp::Ordering::Greater => -root,
        }
    };
    let square =
        |row: usize, col: usize| -> f64 { (0..size).map(|k| entry(k, row) * entry(k, col)).sum() };
    let mut matrix: Vec<Vec<f64>> = (0..size)
        .map(|row| (0..size).map(|col| square(row, col)).collect())
        .collect();
    while rotate_all(&mut matrix) {}
    let mut squares: Vec<f64> = (0..size).map(|index| matrix[index][index]).collect();
    squares.sort_by(|a, b| b.total_cmp(a));
    let pairs = squares.chunks_exact(2);
    pairs
        .map(|pair| (pair[0] * pair[1]).sqrt().sqrt())
        .collect()
}

/// Turns every pair of axes so that their entry is 0; whether any was not, to rounding.
fn rotate_all(matrix: &mut [Vec<f64>]) -> bool {
    let size = matrix.len();
    let mut any = false;
    for p in 0..size {
        for q in p + 1..size {
            let (a, b, off) = (matrix[p][p], matrix[q][q], matrix[p][q]);
            if off.abs() <= 1e-15 * (a * b).abs().sqrt() {
                continue;
            }
            any = true;
            let slope = (b - a) / (2.0 * off);
            let tangent = slope.signum() / (slope.abs() + (slope * slope + 1.0).sqrt());
            let cos = 1.0 / (tangent * tangent + 1.0).sqrt();
            let sin = tangent * cos;
            for row in matrix.iter_mut() {
                let (x, y) = (row[p], row[q]);
                (row[p], row[q]) = (cos * x - sin * y, sin * x + cos * y);
            }
            let (head, tail) = matrix.split_at_mut(q);
            for (x, y) in head[p].iter_mut().zip(&mut tail[0]) {
                (*x, *y) = (cos * *x - sin * *y, sin * *x + cos * *y);
            }
        }
    }
    any
}

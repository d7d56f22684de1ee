//! Ridge regression with an intercept, whose leave-one-out predictions have a closed form.
//!
//! min Σ w_i (y_i − b − t·z_i)² + λ Σ w_i |t|² over columns z of mean 0 and variance 1. With H the
//! matrix that maps y to its fit ŷ, the prediction of y_i without row i is
//! y_i − (y_i − ŷ_i)/(1 − H_ii) (Allen, *Technometrics* 16, 1974); the columns' scales are kept.

use nalgebra::{DMatrix, DVector, SymmetricEigen};

/// Ridge parameters that are tried, from next to none to next to nothing but the mean.
pub(crate) const PENALTIES: [f64; 13] =
    [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0];

/// A design, taken apart once for all responses and penalties.
pub(crate) struct Ridge {
    mean: DVector<f64>,
    scale: DVector<f64>,
    total: f64,
    root_weights: DVector<f64>,
    /// Principal directions of the columns. `[d, d]`
    directions: DMatrix<f64>,
    /// Their squared lengths. `[d]`
    lengths: DVector<f64>,
    /// Rows in these directions, times √w. `[n, d]`
    rotated: DMatrix<f64>,
}

/// b and t on the columns as they came.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    pub intercept: f64,
    pub slopes: Vec<f64>,
}

impl Line {
    pub fn at(&self, columns: impl IntoIterator<Item = f64>) -> f64 {
        self.slopes.iter().zip(columns).fold(self.intercept, |sum, (slope, x)| sum + slope * x)
    }
}

impl Ridge {
    pub fn new(columns: &DMatrix<f64>, weights: &[f64]) -> Self {
        let weights = DVector::from_column_slice(weights);
        let total = weights.sum();
        let mean = columns.tr_mul(&weights) / total;
        let mut design = columns.clone();
        let mut scale = DVector::from_element(columns.ncols(), 1.0);
        for (index, mut column) in design.column_iter_mut().enumerate() {
            column.add_scalar_mut(-mean[index]);
            let variance = column.iter().zip(&weights).map(|(x, w)| w * x * x).sum::<f64>() / total;
            // A column that hardly moves has nothing to say.
            scale[index] = if variance.sqrt() > 1e-12 { variance.sqrt() } else { f64::INFINITY };
            column /= scale[index];
        }
        let root_weights = weights.map(f64::sqrt);
        for (mut row, root) in design.row_iter_mut().zip(&root_weights) {
            row *= *root;
        }
        let SymmetricEigen { eigenvectors, eigenvalues } =
            (design.transpose() * &design).symmetric_eigen();
        let lengths = eigenvalues.map(|length| length.max(0.0));
        let rotated = design * &eigenvectors;
        Self { mean, scale, total, root_weights, directions: eigenvectors, lengths, rotated }
    }

    /// What a response has in each direction, and its mean.
    pub fn response(&self, y: &[f64]) -> Response {
        let y = DVector::from_column_slice(y);
        let squares = self.root_weights.component_mul(&self.root_weights);
        let mean = y.dot(&squares) / self.total;
        let centred = (&y - DVector::from_element(y.len(), mean)).component_mul(&self.root_weights);
        Response { mean, parts: self.rotated.tr_mul(&centred), centred }
    }

    fn shrunk(&self, penalty: f64) -> DVector<f64> {
        self.lengths.map(|length| 1.0 / (length + penalty * self.total))
    }

    pub fn line(&self, response: &Response, penalty: f64) -> Line {
        let inner = response.parts.component_mul(&self.shrunk(penalty));
        let slopes = (&self.directions * inner).component_div(&self.scale);
        let intercept = response.mean - slopes.dot(&self.mean);
        Line { intercept, slopes: slopes.iter().copied().collect() }
    }

    /// H_ii of each row.
    pub fn leverages(&self, penalty: f64) -> Vec<f64> {
        let shrunk = self.shrunk(penalty);
        let rows = self.rotated.row_iter().zip(&self.root_weights);
        rows.map(|(row, root)| {
            let inner = row.iter().zip(&shrunk).map(|(x, factor)| x * x * factor).sum::<f64>();
            root * root / self.total + inner
        })
        .collect()
    }

    /// The errors y − ŷ of predictions without each row.
    pub fn held_out_errors(
        &self,
        response: &Response,
        penalty: f64,
        leverages: &[f64],
    ) -> Vec<f64> {
        let fitted = &self.rotated * response.parts.component_mul(&self.shrunk(penalty));
        let rows = response.centred.iter().zip(&fitted).zip(&self.root_weights).zip(leverages);
        rows.map(|(((y, fit), root), leverage)| (y - fit) / root / (1.0 - leverage).max(1e-9))
            .collect()
    }
}

/// A response in a [`Ridge`]'s directions.
pub(crate) struct Response {
    mean: f64,
    parts: DVector<f64>,
    centred: DVector<f64>,
}

"""Is a network losing plasticity? Dead units, ranks, magnitudes, relearning: pure functions and one probe."""

from .magnitudes import feature_norm as feature_norm
from .magnitudes import gradient_norm as gradient_norm
from .magnitudes import update_norm as update_norm
from .magnitudes import weight_magnitude as weight_magnitude
from .policy import approximate_kl as approximate_kl
from .policy import categorical_entropy as categorical_entropy
from .policy import gaussian_entropy as gaussian_entropy
from .probe import Probe as Probe
from .ranks import abs_approximate_rank as abs_approximate_rank
from .ranks import approximate_rank as approximate_rank
from .ranks import effective_rank as effective_rank
from .ranks import singular_values as singular_values
from .ranks import stable_rank as stable_rank
from .relearning import PlasticityIndex as PlasticityIndex
from .relearning import Relearning as Relearning
from .relearning import plasticity_index as plasticity_index
from .relearning import relearning as relearning
from .statistics import Estimate as Estimate
from .statistics import bootstrap as bootstrap
from .statistics import interquartile_mean as interquartile_mean
from .statistics import mean as mean
from .summary import summarise as summarise
from .units import dead_units as dead_units
from .units import dormancy_scores as dormancy_scores
from .units import dormant_units as dormant_units
from .units import saturation as saturation

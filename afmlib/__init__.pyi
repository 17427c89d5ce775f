from afmlib.config import load_config as load_config
from afmlib.engine.train import train as train
from afmlib.evaluation import save_grid as save_grid
from afmlib.evaluation.api import evaluate as evaluate
from afmlib.hub import from_pretrained as from_pretrained
from afmlib.hub import push_to_hub as push_to_hub
from afmlib.hub import save_pretrained as save_pretrained
from afmlib.official import load_official as load_official
from afmlib.pretrained import load_classifier as load_classifier
from afmlib.registry import build_classifier as build_classifier
from afmlib.registry import build_dataset as build_dataset
from afmlib.registry import build_discriminator as build_discriminator
from afmlib.registry import build_generator as build_generator
from afmlib.registry import build_loss as build_loss
from afmlib.registry import build_objective as build_objective
from afmlib.registry import build_penalty as build_penalty
from afmlib.registry import list_components as list_components
from afmlib.sampling import load_checkpoint as load_checkpoint
from afmlib.sampling import sample as sample

__version__: str

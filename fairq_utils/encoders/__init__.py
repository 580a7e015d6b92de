"""Small encoders of images and texts, what they are taught and what they are asked."""

from fairq_utils.encoders.captions import captioned_faces, captioned_moths, training_set
from fairq_utils.encoders.contrastive import ContrastiveRecipe, train_mini_classifier, train_mini_clip
from fairq_utils.encoders.linear_layers import linear_treatments, quantize_linear
from fairq_utils.encoders.mini import DualEncoder, MiniClassifier, MiniCLIP, MiniEncoder, WordTokenizer
from fairq_utils.encoders.pretrained import OpenClip, open_clip
from fairq_utils.encoders.questions import EncoderOutputs, EvaluationSet, ask
from fairq_utils.encoders.scene_folders import coco_captions, facet
from fairq_utils.encoders.scenes import Scenes

__all__ = [
    "ContrastiveRecipe",
    "DualEncoder",
    "EncoderOutputs",
    "EvaluationSet",
    "MiniCLIP",
    "MiniClassifier",
    "MiniEncoder",
    "OpenClip",
    "Scenes",
    "WordTokenizer",
    "ask",
    "captioned_faces",
    "captioned_moths",
    "coco_captions",
    "facet",
    "linear_treatments",
    "open_clip",
    "quantize_linear",
    "train_mini_classifier",
    "train_mini_clip",
    "training_set",
]

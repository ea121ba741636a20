"""A model server of vla-eval that moves always the same way. Runs in vla-eval's environment."""

import sys

import numpy as np
from vla_eval.model_servers.predict import PredictModelServer
from vla_eval.model_servers.serve import serve
from vla_eval.specs import IMAGE_RGB, LANGUAGE, RAW


class Constant(PredictModelServer):
    def predict(self, obs, ctx):
        assert obs["task_description"] and all(image.dtype == np.uint8 for image in obs["images"].values())
        return {"actions": np.array([0.5, -0.25], dtype=np.float32)}

    def get_action_spec(self):
        return {"actions": RAW}

    def get_observation_spec(self):
        return {"image": IMAGE_RGB, "language": LANGUAGE}


serve(Constant(), host="127.0.0.1", port=int(sys.argv[1]))

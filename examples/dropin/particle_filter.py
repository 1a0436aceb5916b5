import numpy as np
import particles
from particles import state_space_models as ssm

import fastguide.adapters.particles  # noqa: F401 - the one line more; it registers the name below

np.random.seed(0)
model = ssm.StochVol(mu=-1.0, rho=0.9, sigma=0.1)
_, data = model.simulate(100)
bootstrap = ssm.Bootstrap(ssm=model, data=data)
smc = particles.SMC(fk=bootstrap, N=1000, resampling="fastguide_systematic")  # was: resampling="systematic"
smc.run()
print("log-likelihood", smc.logLt)

"""One MAML meta-gradient, by this project and written for other frameworks:
what meta_gradient.py lets race.

The problem: T point masses start at the origin and run K episodes of H steps under a Gaussian
policy, a tanh network with learned log standard deviations. A step moves by the action, clipped to
+-0.1; the reward is minus the distance to the goal; no episode ends early. Loss: minus the mean of
log pi * (discounted return-to-go minus its mean over the episodes at each time). Meta-gradient: of
the mean over tasks of the loss after one inner step of gradient descent, through that step, with
respect to the parameters before it. Both batches of episodes are part of the work.

A contestant is a function from the inputs to a function that returns the meta-gradient, as flat as
theta. Run as a script it is a process of its own that imports nothing but NumPy and its framework:

    python benchmarks/peers.py NAME INPUTS.npz GRADIENT.npy

It then reads numbers of repetitions from standard input, one a line, or nothing.
"""

import json
import multiprocessing
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ALPHA = 0.1  # inner step size
GAMMA = 0.99  # discount
BOUND = 0.1  # the most that a step moves in each axis


@dataclass
class Inputs:
    """theta (P,), goals (T, 2), noise (2, H, T, K, 2) before and after the inner step;
    the widths of the network; the file.
    """

    theta: np.ndarray
    goals: np.ndarray
    noise: np.ndarray
    widths: np.ndarray
    path: str | None = None

    @property
    def sizes(self):
        return self.noise.shape[2], self.noise.shape[3], self.noise.shape[1]  # T, K, H

    @property
    def layers(self):
        """theta as [weights, biases, weights, biases, ..., log standard deviations]."""
        shapes = []
        for i, o in zip(self.widths, self.widths[1:], strict=False):
            shapes += [(i, o), (o,)]
        shapes.append((self.widths[-1],))
        ends = np.cumsum([np.prod(shape) for shape in shapes])
        parts = np.split(self.theta, ends[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def flat(parts):
    return np.concatenate([np.ravel(part) for part in parts])


def discounts(H):
    """The matrix that turns rewards (..., H) into returns-to-go:
    gamma^(s - t) in row s, column t <= s.
    """
    ahead = np.arange(H)[:, None] - np.arange(H)
    return np.where(ahead >= 0, GAMMA ** np.maximum(ahead, 0), 0)


# --- This project ---
def ours(inputs):
    from ours import contestant

    return contestant(inputs, ALPHA, GAMMA)


# --- PyTorch ---
def torch_batched(inputs):
    """All tasks at once, by hand: stacked parameters, batched matrix products."""
    import torch

    T, K, H = inputs.sizes
    theta = [torch.tensor(x, requires_grad=True) for x in inputs.layers]
    goals = torch.tensor(inputs.goals[:, None])
    noise = torch.tensor(inputs.noise)
    to_go = torch.tensor(discounts(H)).to(goals.dtype)

    def network(q, x):  # x (T, n, 2); parameters with a leading axis T, or without it: shared
        for w, b in zip(q[0:-1:2], q[1:-1:2], strict=True):
            if w is not q[0]:
                x = torch.tanh(x)
            if w.dim() == 3:
                x = torch.baddbmm(b[:, None], x, w)
            else:
                x = torch.addmm(b, x.reshape(-1, len(w)), w).view(*x.shape[:-1], -1)
        return x

    @torch.no_grad()
    def rollout(q, noise):
        obs, actions = (goals.new_empty(T, H, K, 2) for _ in range(2))
        state = goals.new_zeros(T, K, 2)
        deviation = q[-1].exp().unsqueeze(-2)
        for t in range(H):
            obs[:, t] = state
            actions[:, t] = action = torch.addcmul(network(q, state), deviation, noise[t])
            state = state + action.clamp(-BOUND, BOUND)
        after = torch.cat([obs[:, 1:], state[:, None]], 1)
        rewards = -torch.linalg.vector_norm(after - goals[:, None], dim=-1)
        returns = torch.einsum("tsk,su->tuk", rewards, to_go)
        advantages = returns - returns.mean(-1, keepdim=True)
        return obs.view(T, H * K, 2), actions.view(T, H * K, 2), advantages.reshape(T, H * K)

    def losses(q, obs, actions, advantages):
        z = (actions - network(q, obs)) * torch.exp(-q[-1])[:, None]
        log_pi = -0.5 * (z * z).sum(-1) - q[-1].sum(-1, keepdim=True) - np.log(2 * np.pi)
        return -(log_pi * advantages).mean(-1)

    def meta_gradient():
        q = [x.expand(T, *x.shape) for x in theta]
        g = torch.autograd.grad(losses(q, *rollout(theta, noise[0])).sum(), q, create_graph=True)
        adapted = [x - ALPHA * y for x, y in zip(q, g, strict=True)]
        return flat(torch.autograd.grad(losses(adapted, *rollout(adapted, noise[1])).mean(), theta))

    meta_gradient.rollout = rollout  # for torch_func
    meta_gradient.theta = theta
    meta_gradient.noise = noise
    return tuned(meta_gradient)


def torch_func(inputs):
    """vmap and grad of torch.func over the loss of one task;
    the rollouts are those of torch_batched.
    """
    import torch
    from torch.func import grad, vmap

    batched = torch_batched(inputs)
    theta = tuple(x.detach() for x in batched.theta)
    noise = batched.noise
    rollout = batched.rollout

    def loss(q, obs, actions, advantages):
        x = obs
        for w, b in zip(q[0:-1:2], q[1:-1:2], strict=True):
            x = (x if w is q[0] else torch.tanh(x)) @ w + b
        z = (actions - x) * torch.exp(-q[-1])
        return -((-0.5 * (z * z).sum(-1) - q[-1].sum() - np.log(2 * np.pi)) * advantages).mean()

    def adapt(theta, D):
        g = vmap(grad(loss), in_dims=(None, 0, 0, 0))(theta, *D)
        return tuple(x - ALPHA * y for x, y in zip(theta, g, strict=True))

    def meta_gradient():
        D = rollout(theta, noise[0])
        D_prime = rollout(adapt(theta, D), noise[1])
        return flat(grad(lambda theta: vmap(loss)(adapt(theta, D), *D_prime).mean())(theta))

    return tuned(meta_gradient)


def torch_loop(inputs):
    """A loop over tasks with torch.distributions, the form of most published code;
    episodes are batched.
    """
    import torch
    from torch.distributions import Independent, Normal
    from torch.nn.functional import linear

    T, K, H = inputs.sizes
    theta = [torch.tensor(np.ascontiguousarray(x.T), requires_grad=True) for x in inputs.layers]
    goals = torch.tensor(inputs.goals)
    noise = torch.tensor(inputs.noise)

    def policy(q, x):
        for w, b in zip(q[0:-1:2], q[1:-1:2], strict=True):
            x = linear(x if w is q[0] else torch.tanh(x), w, b)
        return Independent(Normal(x, torch.exp(q[-1]), validate_args=False), 1, validate_args=False)

    @torch.no_grad()
    def rollout(q, noise, goal):
        state = goals.new_zeros(K, 2)
        obs, actions, rewards = [], [], []
        for t in range(H):
            pi = policy(q, state).base_dist
            obs.append(state)
            actions.append(pi.loc + pi.scale * noise[t])
            state = state + actions[-1].clamp(-BOUND, BOUND)
            rewards.append(-torch.linalg.vector_norm(state - goal, dim=-1))
        for t in reversed(range(H - 1)):
            rewards[t] = rewards[t] + GAMMA * rewards[t + 1]
        returns = torch.stack(rewards)
        return torch.stack(obs), torch.stack(actions), returns - returns.mean(1, keepdim=True)

    def loss(q, obs, actions, advantages):
        return -(policy(q, obs).log_prob(actions) * advantages).mean()

    def meta_gradient():
        total = 0
        for i in range(T):
            D = rollout(theta, noise[0, :, i], goals[i])
            g = torch.autograd.grad(loss(theta, *D), theta, create_graph=True)
            adapted = [x - ALPHA * y for x, y in zip(theta, g, strict=True)]
            total = total + loss(adapted, *rollout(adapted, noise[1, :, i], goals[i])) / T
        return flat([g.numpy().T for g in torch.autograd.grad(total, theta)])

    return tuned(meta_gradient)


def tuned(meta_gradient, repetitions=3):
    """The same function; at its second call PyTorch settles on one thread or all cores,
    whichever is faster.
    """
    import torch

    torch.set_num_threads(os.cpu_count())
    calls = 0

    def call():
        nonlocal calls
        calls += 1
        if calls == 2:
            times = {}
            for threads in {1, os.cpu_count()}:
                torch.set_num_threads(threads)
                times[threads] = min(seconds(meta_gradient) for _ in range(repetitions))
            torch.set_num_threads(min(times, key=times.get))
        return meta_gradient()

    call.__dict__ |= meta_gradient.__dict__
    return call


# --- JAX ---
def jax_jit(inputs):
    """The loss of one task under vmap, episodes under scan, all of it in one jit."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", inputs.theta.dtype == np.float64)
    _, K, H = inputs.sizes
    to_go = jnp.asarray(discounts(H).T, inputs.theta.dtype)

    def network(q, x):
        for w, b in zip(q[0:-1:2], q[1:-1:2], strict=True):
            x = (x if w is q[0] else jnp.tanh(x)) @ w + b
        return x

    def rollout(q, noise, goal):
        deviation = jnp.exp(q[-1])

        def step(state, noise):
            action = network(q, state) + deviation * noise
            after = state + jnp.clip(action, -BOUND, BOUND)
            return after, (state, action, -jnp.sqrt(((after - goal) ** 2).sum(-1)))

        _, (obs, actions, rewards) = jax.lax.scan(step, jnp.zeros((K, 2), noise.dtype), noise)
        returns = to_go @ rewards
        return jax.lax.stop_gradient((obs, actions, returns - returns.mean(1, keepdims=True)))

    def loss(q, obs, actions, advantages):
        z = (actions - network(q, obs)) * jnp.exp(-q[-1])
        return -((-0.5 * (z * z).sum(-1) - q[-1].sum() - np.log(2 * np.pi)) * advantages).mean()

    def after_adaptation(theta, goal, noise):
        g = jax.grad(loss)(theta, *rollout(jax.lax.stop_gradient(theta), noise[0], goal))
        adapted = [x - ALPHA * y for x, y in zip(theta, g, strict=True)]
        return loss(adapted, *rollout(jax.lax.stop_gradient(adapted), noise[1], goal))

    def mean_loss(theta, goals, noise):
        return jax.vmap(after_adaptation, in_axes=(None, 0, 2))(theta, goals, noise).mean()

    compiled = jax.jit(jax.grad(mean_loss))
    arguments = (
        [jnp.asarray(x) for x in inputs.layers],
        jnp.asarray(inputs.goals),
        jnp.asarray(inputs.noise),
    )
    return lambda: flat(jax.block_until_ready(compiled(*arguments)))


# --- HIPS autograd ---
def autograd_batched(inputs):
    """All tasks at once with stacked parameters; the rollouts are plain NumPy."""
    import autograd.numpy as anp
    from autograd import grad

    T, K, H = inputs.sizes
    goals = inputs.goals[:, None]
    dtype = inputs.theta.dtype
    to_go = np.asarray(discounts(H), dtype)
    alpha = np.asarray(ALPHA, dtype)
    half = np.asarray(0.5, dtype)
    constant = np.asarray(np.log(2 * np.pi), dtype)
    bound = np.asarray(BOUND, dtype)

    def network(np, q, x):  # np: of NumPy or of autograd
        for n in range(0, len(q) - 1, 2):
            x = np.matmul(np.tanh(x) if n else x, q[n]) + q[n + 1]
        return x

    def rollout(q, noise):
        obs, actions = (np.empty((T, H, K, 2), dtype) for _ in range(2))
        state = np.zeros((T, K, 2), dtype)
        deviation = np.exp(q[-1])
        for t in range(H):
            obs[:, t] = state
            actions[:, t] = action = network(np, q, state) + deviation * noise[t]
            state = state + np.minimum(np.maximum(action, -bound), bound)
        offset = np.concatenate([obs[:, 1:], state[:, None]], 1) - goals[:, None]
        returns = np.matmul(to_go.T, -np.sqrt(offset[..., 0] ** 2 + offset[..., 1] ** 2))
        advantages = returns - returns.mean(-1, keepdims=True)
        return obs.reshape(T, -1, 2), actions.reshape(T, -1, 2), advantages.reshape(T, -1)

    def losses(q, obs, actions, advantages):
        z = (actions - network(anp, q, obs)) * anp.exp(-q[-1])
        log_pi = -half * anp.sum(z * z, -1) - anp.sum(q[-1], -1) - constant
        return -anp.mean(log_pi * advantages, -1)

    inner = grad(lambda q, D: anp.sum(losses(q, *D)))
    adapt = lambda q, D: [x - alpha * y for x, y in zip(q, inner(q, D), strict=True)]
    outer = grad(lambda q, D, D_prime: anp.sum(losses(adapt(q, D), *D_prime)))
    stacked = [np.stack([np.atleast_2d(x)] * T) for x in inputs.layers]

    def meta_gradient():
        D = rollout(stacked, inputs.noise[0])
        D_prime = rollout(adapt(stacked, D), inputs.noise[1])
        return flat([g.mean(0) for g in outer(stacked, D, D_prime)])

    return meta_gradient


CONTESTANTS = {  # name: what makes it, the module that it needs, what it is
    "ours": (ours, "numpy", "NumPy, chunks of tasks by processes"),
    "torch-batched": (torch_batched, "torch", "PyTorch, batched by hand"),
    "torch-func": (torch_func, "torch", "PyTorch, torch.func vmap and grad"),
    "torch-loop": (torch_loop, "torch", "PyTorch, loop over tasks"),
    "jax": (jax_jit, "jax", "JAX, jit + vmap + scan, warm"),
    "autograd": (autograd_batched, "autograd", "HIPS autograd, batched"),
}


# --- The process ---
def seconds(f):
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def measured(f):
    """Seconds of one call: by the clock, and of processor time in all threads and in the children
    of this process.
    """
    cpu = processor_time()
    wall = seconds(f)
    return wall, processor_time() - cpu


def processor_time():
    """Seconds.

    That of children before they end is known on Linux only: elsewhere NaN if there are any.
    """
    children = [child.pid for child in multiprocessing.active_children()]
    if children and sys.platform != "linux":
        return float("nan")
    clocks = [(~pid << 3) | 2 for pid in children]  # as clock_getcpuclockid(3) makes them
    return time.process_time() + sum(map(time.clock_gettime, clocks))


def peak():
    """The most memory that this process and its children have held, each by itself, in MB;
    None where nothing tells.
    """
    if not Path("/proc/self/status").exists():
        return None
    found = 0
    for pid in ("self", *(child.pid for child in multiprocessing.active_children())):
        text = Path(f"/proc/{pid}/status").read_text()
        # Without what a process inherits, as in ru_maxrss
        found += int(text.split("VmHWM:")[1].split()[0]) / 1024
    return found


def main(name, inputs, gradient):
    with np.load(inputs) as arrays:
        meta_gradient = CONTESTANTS[name][0](Inputs(**arrays, path=inputs))
    np.save(gradient, meta_gradient())
    print("ready", flush=True)
    for line in sys.stdin:
        measurements = [measured(meta_gradient) for _ in range(int(line))]
        print(json.dumps([measurements, peak()], allow_nan=False), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

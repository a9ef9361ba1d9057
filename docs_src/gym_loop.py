"""Play an environment with Gymnasium alone: a scripted agent plans the trip of the built-in example."""

import json
from itertools import permutations

import gymnasium

CITIES = ("Hangzhou", "Huangshan", "Suzhou")
FIELDS = ("hotel", "afternoon_restaurant", "afternoon_attraction", "evening_restaurant")


class Agent:
    """A model would take its place: it answers each observation with one JSON text."""

    def __init__(self, env: gymnasium.Env) -> None:
        self.env = env

    def act(self, action: dict) -> dict:
        observation, self.reward, *_, self.info = self.env.step(json.dumps(action))
        return json.loads(observation)

    def call(self, tool: str, **arguments: object) -> list:
        return self.act({"tool": tool, "arguments": arguments})["result"]

    def facts(self, kind: str, city: str, word: str) -> list[dict]:
        names = self.call(f"get_all_{kind}s_by_city", city=city)
        tool = f"get_infos_by_{kind}"
        return [self.call(tool, info_keywords=[word], **{kind: name}) for name in names]

    def second_day(self, city: str) -> list[str]:
        hotel = next(h for h in self.facts("hotel", city, "price") if 500 <= h["price"] < 800)
        sight = next(a for a in self.facts("attraction", city, "ticket") if a["ticket"] < 180)
        meals = permutations(self.facts("restaurant", city, "rating"), 2)
        lunch, dinner = next(pair for pair in meals if pair[0]["rating"] >= 4.0)
        return [hotel["name"], lunch["name"], sight["name"], dinner["name"]]

    def any_day(self, city: str) -> list[str]:
        kinds = ("hotels", "restaurants", "attractions")
        hotels, meals, sights = (self.call(f"get_all_{kind}_by_city", city=city) for kind in kinds)
        return [hotels[0], meals[0], sights[0], meals[1]]

    def play(self) -> None:
        plan = []
        for number, city in enumerate(CITIES, 1):
            places = self.second_day(city) if number == 2 else self.any_day(city)
            plan.append({"time": f"2025-10-0{number}", "city": city, **dict(zip(FIELDS, places, strict=True))})
        self.call("submit_result", answer_text=json.dumps({"plan": plan}))
        self.act({"answer": {"plan": plan}})


if __name__ == "__main__":
    env = gymnasium.make("envsynth/trip-planning-v1")
    observation, info = env.reset(seed=7)
    print(observation.splitlines()[1])
    agent = Agent(env)
    agent.play()
    print(f"reward {agent.reward} after {agent.info['turn']} turns")
    env.close()

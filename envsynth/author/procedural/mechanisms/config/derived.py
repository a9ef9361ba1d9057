"""Derived attributes of a package world, each with its three texts, and the sentences about them."""

from __future__ import annotations

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Derived
from envsynth.author.procedural.mechanisms.config.bindings import VERSION, Bindings


class DerivedTexts(Bindings):
    """Writes the derived attributes over one world."""

    def pins_policy(self) -> str:
        """Which pins count."""
        word = self.world.word
        pin, place, package = word("pin"), word(self.where), word("package")
        text = f"A {pin} says which version of a {package} a {place} uses; a {place} has at most one"
        if self.history:
            return (
                f"{text} whose standing is current for each {package}. A {pin} whose standing is former never counts."
            )
        return f"{text} for each {package}, and every {pin} counts."

    def needs_policy(self) -> str:
        """What a requirement asks for, and when it is met."""
        word = self.world.word
        requirement, release, package, place = word("requirement"), word("release"), word("package"), word(self.where)
        bounds = (
            "from its minimum to its maximum version, both included"
            if self.ceilings
            else ("that is its minimum version or more")
        )
        weak = f" A {requirement} whose strength is recommended never counts." if self.soft else ""
        deep = (
            f", and if, in turn, every {requirement} of the {release} with that version of that {package} is met there"
            if self.deep
            else ""
        )
        return (
            f"A {requirement} of a {release} is met in a {place} if a {word('pin')} that counts sets the needed {package}"
            f" there to a version {bounds}{deep}.{weak}"
        )

    def unmet_needs(self) -> Derived:
        """Count of unmet requirements of a release in a place."""
        word, plural = self.world.word, self.world.plural
        return Derived(
            entity="release",
            name="unmet_needs",
            label=f"unmet {word('requirement')} count in {{0}}",
            params=(Type("row", self.where),),
            type=Type("num"),
            sql=self.unmet_sql('{t}."id"', "{0}"),
            plan=(
                self.plan_shelf() + "def d_unmet_needs(row, place):\n"
                "    at = shelf(place)\n"
                "    asked = at['needs'].get(row['id'], [])\n"
                "    if not POLICY:\n"
                "        return len([need for need in asked if need[0] not in at['pins']])\n"
                "    return len([need for need in asked if not need_met(need, at)])\n"
            ),
            goal=(
                self.goal_unmet() + "def g_unmet_needs(db, row, place):\n"
                "    return len(unmet_ranges(place['id']).get(row['id'], []))\n"
            ),
            policy=(
                f"The unmet {word('requirement')} count of a {word('release')} in a {word(self.where)} is how many of its "
                f"{plural('requirement')}{' whose strength is required' if self.soft else ''} are not met there."
            ),
        )

    def installable(self) -> Derived:
        """Whether a release can be installed in a place."""
        return Derived(
            entity="release",
            name="installable",
            label="installable in {0}",
            params=(Type("row", self.where),),
            type=Type("bool"),
            sql=self.installable_sql("{t}", "{0}"),
            plan=self.plan_installable(),
            goal=(
                self.goal_fitting() + "def g_installable(db, row, place):\n"
                "    package, number = issues_by_id()[row['id']]\n"
                "    return number in fitting_versions(place['id']).get(package, [])\n"
            ),
            policy=self.installable_policy(),
        )

    def installable_policy(self) -> str:
        """When a release is installable."""
        word, plural = self.world.word, self.world.plural
        release, place, package, requirement = word("release"), word(self.where), word("package"), word("requirement")
        state = "its state is published"
        if self.candidates:
            state += f" (or candidate, if the channel of its {package} is preview)"
        parts = [state]
        if self.age:
            parts.append(
                f"its {release} day lies at least {self.age} days before today, {self.today} "
                f"(so on or before {self.ripe})"
            )
        parts.append(f"its unmet {requirement} count there is 0")
        if self.mutual:
            strong = f"{requirement} whose strength is required" if self.soft else requirement
            bounds = "lies within the range" if self.ceilings else "is not below the minimum version"
            parts.append(
                f"its version {bounds} of every {strong} for its {package} that the {plural('release')} in use there have "
                f"(a {release} is in use where a {word('pin')} that counts sets its version)"
            )
        listed = f"{', '.join(parts[:-1])} and {parts[-1]}"
        return (
            f"A {release} is installable in a {place}, whether that {place} uses it already or not, only if {listed}."
        )

    def latest_version(self) -> Derived:
        """Largest installable version of a package in a place."""
        word, plural = self.world.word, self.world.plural
        return Derived(
            entity="package",
            name="latest_version",
            label="latest installable version in {0}",
            params=(Type("row", self.where),),
            type=VERSION,
            sql=self.latest_sql("{t}", "{0}"),
            plan=self.plan_latest(),
            goal=(
                self.goal_fitting() + "def g_latest_version(db, row, place):\n"
                "    return max(fitting_versions(place['id']).get(row['id'], []), default=0)\n"
            ),
            policy=(
                f"The latest installable version of a {word('package')} in a {word(self.where)} is the largest version of "
                f"its {plural('release')} that are installable there; it is 0 if none is."
            ),
        )

    def outdated_pins(self) -> Derived:
        """How many pins of a place lie below the latest installable version."""
        word, plural = self.world.word, self.world.plural
        pin, place, package = word("pin"), word(self.where), word("package")
        return Derived(
            entity=self.where,
            name="outdated_pins",
            label=f"outdated {pin} count",
            type=Type("num"),
            sql=self.outdated_sql('{t}."id"'),
            plan=(
                self.plan_latest() + "def d_outdated_pins(row):\n"
                "    at, late = shelf(row), 0\n"
                "    for package in rows('package', {}):\n"
                "        if package['id'] in at['pins']:\n"
                "            late += any([n > at['pins'][package['id']] for n in versions_for(package, at)])\n"
                "    return late\n"
            ),
            goal=(
                self.goal_fitting() + "def g_outdated_pins(db, row):\n"
                "    fitting = fitting_versions(row['id'])\n"
                "    pins = pinned_versions(row['id']).items()\n"
                "    return [any(n > version for n in fitting.get(package, [])) for package, version in pins].count(True)\n"
            ),
            policy=(
                f"The outdated {pin} count of a {place} is how many of its {plural('pin')} that count set a version below "
                f"the latest installable version of their {package} there."
            ),
        )

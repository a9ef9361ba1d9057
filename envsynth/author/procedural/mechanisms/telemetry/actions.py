"""Actions of a telemetry world: acknowledge, clear, set a limit, plan maintenance; each with its three texts."""

from __future__ import annotations

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Action
from envsynth.author.procedural.mechanisms.telemetry.bindings import DAY, DEGREES, HOUR, Bindings


class ActionTexts(Bindings):
    """Writes the actions over one world."""

    def acknowledge_policy(self) -> str:
        """Which alarms are acknowledged, and by whom."""
        word, alarms = self.world.word, self.world.plural("alarm")
        alarm = word("alarm")
        text = f"Only a {alarm} whose state is {self.open_words} can be acknowledged; its state becomes acknowledged."
        if self.assigned:
            text = (
                f"Only a {alarm} whose state is {self.open_words} can be acknowledged; its state becomes acknowledged and the "
                f"{word('person')} for whom it is done becomes its assignee."
            )
        if self.group:
            text += (
                f" To acknowledge a {alarm} means to acknowledge as well all other {alarms} whose state is {self.open_words}, "
                f"of the same {word('sensor')} and the same day whose hour is at most {self.window} hours before or "
                "after its own."
            )
        return text

    def acknowledge(self) -> Action:
        """Acknowledge an alarm, by rule with those that belong to it."""
        person = (("person", Type("row", "person")),) if self.assigned else ()
        return Action(
            name="acknowledge",
            phrase="acknowledge {alarm} for {person}" if self.assigned else "acknowledge {alarm}",
            params=(("alarm", Type("row", "alarm")), *person),
            oracle_sql=self.acknowledge_sql(),
            plan=self.acknowledge_plan(),
            goal=self.acknowledge_goal(),
            tables=("alarm",),
            policy=self.acknowledge_policy(),
        )

    def acknowledge_sql(self) -> str:
        """Oracle: the alarms that change."""
        near = f'x."day" = a."day" AND ABS(x."hour" - a."hour") <= {self.window}' if self.group else 'x."id" = a."id"'
        owner = f", '{self.owner}', p.\"{self.owner_key}\"" if self.assigned else ""
        person = ', "person" p' if self.assigned else ""
        chosen = ' AND p."id" = {person}' if self.assigned else ""
        return (
            f"SELECT 'update', 'alarm', json_object('id', x.\"id\", 'state', 'acknowledged'{owner})"
            f' FROM "alarm" a JOIN "alarm" x ON x."{self.alarmed}" = a."{self.alarmed}" AND {near}{person}'
            f' WHERE a."id" = {{alarm}} AND {self.open_sql("a")} AND {self.open_sql("x")}{chosen}'
        )

    def acknowledge_plan(self) -> str:
        """Planner source of `a_acknowledge`."""
        owner = f", {self.arg('person')}=person['id']" if self.assigned else ""
        head = f"def a_acknowledge(alarm{', person' if self.assigned else ''}):\n"
        call = f"write({self.acknowledge_tool!r}, {self.arg('alarm')}="
        if not self.group:
            return f"{head}    {call}alarm['id']{owner})\n"
        return (
            "def alarms_beside(alarm):\n"
            "    found = []\n"
            f"    for a in rows('alarm', {{{self.alarmed!r}: alarm[{self.alarmed!r}]}}):\n"
            f"        near = a['day'] == alarm['day'] and abs(a['hour'] - alarm['hour']) <= {self.window}\n"
            f"        if near and a['id'] != alarm['id'] and a['state'] in {list(self.open_states)}:\n"
            "            found.append(a)\n"
            "    return found\n"
            f"{head}"
            "    others = alarms_beside(alarm) if POLICY else []\n"
            "    for a in [alarm] + others:\n"
            f"        {call}a['id']{owner})\n"
        )

    def acknowledge_goal(self) -> str:
        """Goal source of `s_acknowledge`: every alarm that has to change did so, in any order, and in nothing else."""
        owner = f", {self.owner!r}: person[{self.owner_key!r}]" if self.assigned else ""
        reach = (
            f"abs(a['hour'] - alarm['hour']) <= {self.window} and a['day'] == alarm['day']"
            f" and a[{self.alarmed!r}] == alarm[{self.alarmed!r}]"
            if self.group
            else "a['id'] == alarm['id']"
        )
        done = ("acknowledged", "cleared")
        return (
            f"def s_acknowledge(db, diff, alarm{', person' if self.assigned else ''}):\n"
            f"    if alarm['state'] in {done}:\n"
            "        return None\n"
            f"    waiting = [a for a in db['alarm'] if a['state'] not in {done} and {reach}]\n"
            "    claimed = []\n"
            "    for a in waiting:\n"
            f"        want = {{**a, 'state': 'acknowledged'{owner}}}\n"
            "        claimed += [e for e in diff if e['op'] == 'update' and e['table'] == 'alarm' and e['new'] == want]\n"
            "    return claimed if len(claimed) == len(waiting) else None\n"
        )

    def clear(self) -> Action:
        """Clear an alarm that is not escalated."""
        alarm = self.world.word("alarm")
        escalated = " An escalated one has to be acknowledged first." if self.escalation else ""
        return Action(
            name="clear",
            phrase="clear {alarm}",
            params=(("alarm", Type("row", "alarm")),),
            oracle_sql=(
                "SELECT 'update', 'alarm', json_object('id', a.\"id\", 'state', 'cleared')"
                ' FROM "alarm" a WHERE a."id" = {alarm} AND a."state" IN (\'raised\', \'acknowledged\')'
            ),
            plan=f"def a_clear(alarm):\n    write({self.clear_tool!r}, {self.arg('alarm')}=alarm['id'])\n",
            goal=(
                "def s_clear(db, diff, alarm):\n"
                "    for entry in diff:\n"
                "        if entry['op'] == 'update' and entry['table'] == 'alarm':\n"
                "            if entry['old']['state'] != 'escalated' and entry['new'] == {**alarm, 'state': 'cleared'}:\n"
                "                return [entry]\n"
                "    return None\n"
            ),
            tables=("alarm",),
            policy=(
                f"A {alarm} whose state is raised or acknowledged can be cleared; a cleared one stays cleared.{escalated}"
            ),
        )

    def limit_policy(self) -> str:
        """Which limits can be set."""
        sensor = self.world.word("sensor")
        parts = ["differ from the old one", "be at least 1 degree"]
        if self.low:
            gap = f"more than {2 * self.margin} degrees " if self.margin else ""
            parts.append(f"lie {gap}above the low limit")
        if self.step:
            parts.append(f"lie at most {self.step} degrees from the old one")
        return (
            f"A new high limit of a {sensor} must {', '.join(parts[:-1])} and {parts[-1]}. It is entered as it is given, "
            f"and existing {self.world.plural('alarm')} stay as they are."
        )

    def set_limit(self) -> Action:
        """Set the high limit of a sensor."""
        low = f' AND s."low" + {2 * self.margin} < {{value}}' if self.low else ""
        step = f' AND ABS(s."high" - {{value}}) <= {self.step}' if self.step else ""
        return Action(
            name="set_limit",
            phrase="set the high limit for {sensor} to {value}",
            params=(("sensor", Type("row", "sensor")), ("value", DEGREES)),
            oracle_sql=(
                "SELECT 'update', 'sensor', json_object('id', s.\"id\", 'high', {value})"
                f' FROM "sensor" s WHERE s."id" = {{sensor}} AND s."high" <> {{value}} AND {{value}} >= 1{low}{step}'
            ),
            plan=(
                "def a_set_limit(sensor, value):\n"
                f"    write({self.limit_tool!r}, {self.arg('sensor')}=sensor['id'], high=value)\n"
            ),
            goal=(
                "def s_set_limit(db, diff, sensor, value):\n"
                "    for entry in diff:\n"
                "        if entry['op'] == 'update' and entry['table'] == 'sensor':\n"
                "            if entry['new'] == {**sensor, 'high': value}:\n"
                "                return [entry]\n"
                "    return None\n"
            ),
            tables=("sensor",),
            policy=self.limit_policy(),
        )

    def maintain_policy(self) -> str:
        """When maintenance can be planned."""
        word = self.world.word
        sensor, site, service = word("sensor"), word("site"), word("maintenance")
        cap = ""
        if self.site_cap:
            several = f"{self.site_cap} of the {self.world.plural('sensor')}" if self.site_cap > 1 else f"one {sensor}"
            cap = f" At most {several} of a {site} can have a {service} on the same day."
        span = " It must end after it starts." if self.hourly else ""
        return (
            f"Maintenance is planned by entering a {service}: for {self.today} or a later day, and only if the {sensor} "
            "has none on that day."
            f"{cap}{span}"
        )

    def maintain(self) -> Action:
        """Plan maintenance of a sensor."""
        site_load = (
            f'(SELECT COUNT(*) FROM "maintenance" m JOIN "sensor" q ON q."{self.shut_key}" = m."{self.shut}"'
            f' WHERE m."day" = {{day}} AND q."{self.site}" = s."{self.site}")'
        )
        cap = f" AND {site_load} < {self.site_cap}" if self.site_cap else ""
        span = (("start", HOUR), ("end", HOUR)) if self.hourly else ()
        cells_sql = ", 'start', {start}, 'end', {end}" if self.hourly else ""
        order = " AND {start} < {end}" if self.hourly else ""
        more = ", start=start, end=end" if self.hourly else ""
        names = ", start, end" if self.hourly else ""
        want = ", 'start': start, 'end': end" if self.hourly else ""
        return Action(
            name="maintain",
            phrase=f"plan maintenance for {{sensor}} on {{day}}{' from {start} to {end}' if self.hourly else ''}",
            params=(("sensor", Type("row", "sensor")), ("day", DAY), *span),
            oracle_sql=(
                f"SELECT 'insert', 'maintenance', json_object('{self.shut}', s.\"{self.shut_key}\","
                f' \'day\', {{day}}{cells_sql}) FROM "sensor" s WHERE s."id" = {{sensor}}'
                f" AND {{day}} >= '{self.today}'{order}{cap}"
                f' AND NOT EXISTS (SELECT 1 FROM "maintenance" m WHERE m."{self.shut}" = s."{self.shut_key}"'
                ' AND m."day" = {day})'
            ),
            plan=(
                f"def a_maintain(sensor, day{names}):\n"
                f"    write({self.maintain_tool!r}, {self.arg('sensor')}=sensor['id'], day=day{more})\n"
            ),
            goal=(
                f"def s_maintain(db, diff, sensor, day{names}):\n"
                f"    want = {{{self.shut!r}: sensor[{self.shut_key!r}], 'day': day{want}}}\n"
                "    for entry in diff:\n"
                "        if entry['op'] == 'insert' and entry['table'] == 'maintenance':\n"
                "            if {name: cell for name, cell in entry['new'].items() if name != 'id'} == want:\n"
                "                return [entry]\n"
                "    return None\n"
            ),
            tables=("maintenance",),
            policy=self.maintain_policy(),
        )

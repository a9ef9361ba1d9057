"""Actions of a booking world: book, cancel, hand over; each with its three texts."""

from __future__ import annotations

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Action
from envsynth.author.procedural.mechanisms.booking.bindings import DAY, HOUR, PEOPLE, Bindings
from envsynth.author.procedural.mechanisms.entities import id_argument


class ActionTexts(Bindings):
    """Writes the actions over one world."""

    def book_policy(self) -> str:
        """What can be booked, and how it is entered."""
        word = self.world.word
        booking, place, person = word("booking"), word("resource"), word("person")
        parts = [f"A {place} can be booked when it is free for the whole span, for at most its capacity."]
        if self.rules["longest"]:
            parts.append(f"A new {booking} may last at most {self.rules['longest']} hours.")
        if self.rules["day_hours"]:
            parts.append(
                f"The booked time of the {person} on that day plus the length of the new {booking} may not exceed "
                f"{self.rules['day_hours']} hours."
            )
        if self.rules["tentative"] != "none":
            parts.append(
                f"A new {booking} for more than {self.rules['large_group']} people is entered as tentative, any other as "
                "active."
            )
        return " ".join(parts)

    def book(self) -> Action:
        """Book a place for a span."""
        large = self.rules["large_group"]
        mixed = self.rules["tentative"] != "none"
        status_sql = f"CASE WHEN {{headcount}} > {large} THEN 'tentative' ELSE 'active' END" if mixed else "'active'"
        status_plan = f", status='tentative' if POLICY and headcount > {large} else 'active'" if mixed else ""
        status_goal = f"('active', 'tentative')[headcount > {large}]" if mixed else "'active'"
        row_id, person_id = id_argument(self.world, "resource"), id_argument(self.world, "person")
        return Action(
            name="book",
            phrase="book {resource} for {person} on {day} from {start} to {end} for {headcount}",
            params=(
                ("resource", Type("row", "resource")),
                ("person", Type("row", "person")),
                ("day", DAY),
                ("start", HOUR),
                ("end", HOUR),
                ("headcount", PEOPLE),
            ),
            oracle_sql=(
                f"SELECT 'insert', 'booking', json_object('{self.place}', r.\"{self.place_key}\","
                f" '{self.person}', p.\"{self.person_key}\", 'day', {{day}}, 'start', {{start}}, 'end', {{end}},"
                f" 'headcount', {{headcount}}, 'status', {status_sql})"
                f' FROM "resource" r, "person" p WHERE r."id" = {{resource}} AND p."id" = {{person}}'
                f" AND {self.free_sql('r', '{day}', '{start}', '{end}')}"
                f' AND {{headcount}} BETWEEN 1 AND r."capacity"{self.caps_sql()}'
            ),
            plan=(
                "def a_book(resource, person, day, start, end, headcount):\n"
                f"    write({self.book_tool!r}, {row_id}=resource['id'], {person_id}=person['id'], day=day, start=start,"
                f" end=end, headcount=headcount{status_plan})\n"
            ),
            goal=(
                "def s_book(db, diff, resource, person, day, start, end, headcount):\n"
                f"    want = [resource[{self.place_key!r}], person[{self.person_key!r}], day, start, end, headcount,"
                f" {status_goal}]\n"
                f"    cells = [{self.place!r}, {self.person!r}, 'day', 'start', 'end', 'headcount', 'status']\n"
                "    for entry in diff:\n"
                "        if entry['op'] == 'insert' and entry['table'] == 'booking':\n"
                "            if [entry['new'][cell] for cell in cells] == want:\n"
                "                return [entry]\n"
                "    return None\n"
            ),
            tables=("booking",),
            policy=self.book_policy(),
        )

    def caps_sql(self) -> str:
        """Conditions on length and on the hours that the person holds."""
        longest, cap = self.rules["longest"], self.rules["day_hours"]
        parts = f" AND {{end}} - {{start}} <= {longest}" if longest else ""
        if cap:
            parts += f" AND {self.load_sql('p', '{day}')} + {{end}} - {{start}} <= {cap}"
        return parts

    def cancel(self) -> Action:
        """Cancel a booking."""
        return Action(
            name="cancel",
            phrase="cancel {booking}",
            params=(("booking", Type("row", "booking")),),
            oracle_sql=(
                "SELECT 'update', 'booking', json_object('id', b.\"id\", 'status', 'cancelled')"
                ' FROM "booking" b WHERE b."id" = {booking} AND b."status" <> \'cancelled\''
            ),
            plan=(
                "def a_cancel(booking):\n"
                f"    write({self.cancel_tool!r}, {id_argument(self.world, 'booking')}=booking['id'])\n"
            ),
            goal=(
                "def s_cancel(db, diff, booking):\n"
                "    for entry in diff:\n"
                "        if entry['op'] == 'update' and entry['table'] == 'booking':\n"
                "            if entry['new'] == {**booking, 'status': 'cancelled'}:\n"
                "                return [entry]\n"
                "    return None\n"
            ),
            tables=("booking",),
            policy=f"A cancelled {self.world.word('booking')} can be neither cancelled again nor handed over.",
        )

    def hand_over(self) -> Action:
        """Give a booking to another holder."""
        cap = self.rules["day_hours"]
        room = f' AND {self.load_sql("p", "x.day")} + x."end" - x."start" <= {cap}' if cap else ""
        booking, person = self.world.word("booking"), self.world.word("person")
        return Action(
            name="hand_over",
            phrase="hand {booking} over to {person}",
            params=(("booking", Type("row", "booking")), ("person", Type("row", "person"))),
            oracle_sql=(
                f"SELECT 'update', 'booking', json_object('id', x.\"id\", '{self.person}', p.\"{self.person_key}\")"
                f' FROM "booking" x, "person" p WHERE x."id" = {{booking}} AND p."id" = {{person}}'
                f' AND x."status" <> \'cancelled\' AND x."{self.person}" <> p."{self.person_key}"{room}'
            ),
            plan=(
                "def a_hand_over(booking, person):\n"
                f"    write({self.hand_over_tool!r}, {id_argument(self.world, 'booking')}=booking['id'],"
                f" {id_argument(self.world, 'person')}=person['id'])\n"
            ),
            goal=(
                "def s_hand_over(db, diff, booking, person):\n"
                "    for entry in diff:\n"
                "        if entry['op'] == 'update' and entry['table'] == 'booking':\n"
                f"            if entry['new'] == {{**booking, {self.person!r}: person[{self.person_key!r}]}}:\n"
                "                return [entry]\n"
                "    return None\n"
            ),
            tables=("booking",),
            policy=(
                f"To hand over a {booking} makes another {person} its holder and changes nothing else."
                + (
                    f" The new holder's booked time on that day plus its length may not exceed {cap} hours."
                    if cap
                    else ""
                )
            ),
        )

"""German grammar, as far as the guard needs it: what it passes over, what it counts, and irregular forms."""

from headrace.policies.reuse.lexicon import pairs_of, words_of

STOP_WORDS = words_of(
    "der die das den dem des ein eine einen einem einer eines ist sind war waren bin bist sein seid wird werden wurde "
    "wurden worden hat haben hatte hatten habe kann können könnte könnten kannst darf dürfen soll sollte sollten muss "
    "müssen müsste man ich du wir mein meine meinen meinem meiner meines unser unsere unseren unserem mir mich "
    "uns sich "
    "es dies diese dieser dieses diesen diesem bitte danke doch mal denn eigentlich genau auch so dann da dort hier "
    "welche welcher welches welchen welchem was wer wie ob irgendwie vielleicht möchte möchten will gerne gern würde "
    "dazu davon dabei weg möglichkeit art weise schritt schritte anleitung prozess verfahren etwas tun lassen lässt "
    "gibt geben gib überhaupt also hallo ok okay hi und zum-beispiel am-besten jemand eigene eigenen"
)

OPTIONAL_WORDS = {
    "": words_of("mensch leute"),
    "who": words_of("person aktuell"),
    "where": words_of("stadt ort"),
    "why": words_of("passieren"),
}

JUDGEMENTS = words_of("gut schlecht gesund gefährlich sicher legal wichtig nötig")

VERBS = words_of("")

JOINERS = frozenset(["und", "oder", "sowie"])

CLAUSE_WORDS = words_of("aber weil obwohl während falls wenn sondern dass damit wo als")

NEGATIONS = words_of("nicht kein keine keinen keinem keiner keines nie niemals nichts niemand ohne außer weder noch")

PREPOSITIONS = {
    **dict.fromkeys(["in", "im", "am", "an", "auf", "bei", "beim", "ins", "innerhalb"], "in"),
    **dict.fromkeys(["zu", "zum", "zur", "nach"], "to"),
    **dict.fromkeys(["von", "vom"], "of"),
    **dict.fromkeys(["mit", "mittels", "per"], "with"),
    **dict.fromkeys(["über", "bezüglich"], "about"),
    **{
        word: word
        for word in words_of("für aus durch um vor seit bis gegen unter zwischen hinter neben ab trotz wegen")
    },
}

#: "zu" before a verb at the end says nothing of a direction: the guard looks at the word that follows.
BEFORE_INFINITIVE: frozenset[str] = frozenset()

#: Separable prefixes: "schalte das Licht ein" is "das Licht einschalten".
PARTICLES = words_of(
    "ein aus an ab auf um zu her vor nach mit weg los zurück fest hoch runter herunter herauf nieder durch an wieder "
    "zusammen um bei dar neu"
)

IRREGULAR = pairs_of(
    "schrieb=schreiben geschrieben=schreiben fand=finden gefunden=finden ging=gehen gegangen=gehen sprach=sprechen "
    "gesprochen=sprechen spricht=sprechen starb=sterben gestorben=sterben stirbt=sterben erfand=erfinden "
    "erfunden=erfinden "
    "begann=beginnen begonnen=beginnen fing=anfangen bekam=bekommen erhielt=erhalten wuchs=wachsen wächst=wachsen "
    "las=lesen gelesen=lesen liest=lesen aß=essen gegessen=essen isst=essen trank=trinken getrunken=trinken "
    "gab=geben nahm=nehmen genommen=nehmen nimmt=nehmen half=helfen geholfen=helfen hilft=helfen "
    "kündige=kündigen ändere=ändern ändert=ändern geändert=ändern lade=laden lädt=laden geladen=laden "
    "kinder=kind bücher=buch häuser=haus städte=stadt länder=land größte=größte beste=best besten=best bester=best "
    "gebaut=erstellen "
    "hunde=hund katzen=katze vorteile=vorteil nachteile=nachteil unterschiede=unterschied gründe=grund "
    "ursachen=grund "
    "tage=tag jahre=jahr monate=monat wochen=woche stunden=stunde minuten=minute gehört=gehören "
    "zurückgesetzt=zurücksetzen eingeschaltet=einschalten ausgeschaltet=ausschalten gelöscht=löschen "
    "installiert=installieren hergestellt=erstellen gemacht=erstellen wiegt=wiegen kostet=kosten lebt=leben "
    "wohnt=wohnen heißt=heißen gegründet=gründung gründen=gründung gründer=gründung gründet=gründung "
    "entdeckt=entdecken geboren=geboren bedeutet=bedeuten"
)

OPPOSITES = """
einschalten ausschalten, anmelden abmelden, öffnen schließen, kaufen verkaufen, erhöhen senken,
installieren deinstallieren,
hochladen herunterladen, verschlüsseln entschlüsseln, beginnen enden, vorteil nachteil, groß klein, schnell langsam,
billig teuer, gesund schlecht, gut schlecht, mehr weniger, maximum minimum, höchste niedrigste, größte kleinste,
beste schlechteste, erste letzte, vor nach, mit ohne, links rechts, oben unten, innen außen, heiß kalt, warm kalt,
einfach schwierig, abnehmen zunehmen, einfrieren auftauen, ankommen abfahren, verbinden trennen, import export,
importieren exportieren, gewinn verlust, nord süd, ost west, jung alt, lang kurz, sperren entsperren,
erlauben verbieten,
gewinnen verlieren, leihen verleihen, immer nie, positiv negativ, öffentlich privat, aufsteigend absteigend, tag nacht,
männlich weiblich, früh spät, plus minus, sicher gefährlich, legal illegal
"""
